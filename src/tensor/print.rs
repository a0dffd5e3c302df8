//! How tensors are printed: the spec, then the values where there are few.

use std::fmt;

use super::Tensor;

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({})", self.spec())
    }
}

/// At most this many values are read and printed.
const SHOWN: usize = 24;

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.spec())?;
        if self.numel() > SHOWN {
            return Ok(());
        }
        match self.to_f64() {
            Ok(values) => {
                let list: Vec<String> = values.iter().map(|v| format!("{v:.5}")).collect();
                write!(f, " [{}]", list.join(", "))
            }
            Err(error) => write!(f, " ({error})"),
        }
    }
}
