//! What contrastive losses ask of their inputs.

use crate::error::{Error, Result, require_positive};
use crate::gpu::Scalar;
use crate::ops::{exactly, require_float};
use crate::tensor::Spec;

/// Checks that `inputs` are float matrices with rows, as many columns each.
pub(crate) fn check_rows<const N: usize>(operator: &str, names: [&str; N], inputs: [&Spec; N]) -> Result<()> {
    let mut columns = None;
    for (name, spec) in names.iter().zip(inputs) {
        require_float(operator, name, spec)?;
        let Some([_, d]) = spec.shape.array() else {
            return Err(Error::shape(operator, format!("{name} must be a matrix [rows, features], found {}", spec.shape)));
        };
        if *columns.get_or_insert(d) != d || d == 0 {
            return Err(Error::shape(operator, format!("{name} {} must have {} features, at least 1", spec.shape, columns.unwrap_or(1))));
        }
    }
    Ok(())
}

/// Checks that inputs which one kernel reads are stored alike.
pub(crate) fn check_stored<const N: usize>(operator: &str, names: [&str; N], inputs: [&Spec; N]) -> Result<()> {
    let types = || inputs.iter().map(|spec| spec.dtype);
    if types().any(|dtype| types().next() != Some(dtype)) {
        let (names, found) = (names.join(", "), types().map(|dtype| dtype.to_string()).collect::<Vec<_>>().join(", "));
        return Err(Error::dtype(operator, format!("{names} must be stored alike, found {found}; cast one first")));
    }
    Ok(())
}

/// Checks that two matrices have the same number of rows, at least one.
pub(crate) fn check_batch(operator: &str, names: [&str; 2], [a, b]: [&Spec; 2]) -> Result<()> {
    let [x, y] = names;
    if a.shape.dim(0) != b.shape.dim(0) {
        return Err(Error::shape(operator, format!("{x} {} and {y} {} must have as many rows", a.shape, b.shape)));
    }
    not_empty(operator, x, a)
}

/// Checks that there is a row: a mean over nothing is not a number.
pub(crate) fn not_empty(operator: &str, name: &str, spec: &Spec) -> Result<()> {
    if spec.shape.numel() == 0 {
        return Err(Error::shape(operator, format!("{name} {} is empty; the mean over no rows is undefined", spec.shape)));
    }
    Ok(())
}

/// Checks that a temperature is a positive number.
pub(crate) fn check_temperature(operator: &str, temperature: &Scalar) -> Result<()> {
    require_positive(operator, "temperature", temperature.get()).map(drop)
}

/// As [`exactly`], for specs by reference.
pub(crate) fn specs<'a, const N: usize>(operator: &str, inputs: &'a [Spec]) -> Result<[&'a Spec; N]> {
    let all: &[Spec; N] = exactly(operator, inputs)?;
    Ok(all.each_ref())
}
