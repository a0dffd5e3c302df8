//! An operator's attributes by name, as reference files and the command line give them.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// One attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number or a truth value (0 or 1).
    Number(f64),
    /// Several numbers.
    List(Vec<f64>),
    /// A name.
    Text(String),
}

/// Attributes of one operator.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attributes {
    values: BTreeMap<String, Value>,
}

impl Attributes {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one.
    pub fn insert(&mut self, name: impl Into<String>, value: Value) {
        self.values.insert(name.into(), value);
    }

    /// Whether `name` is given.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    fn wrong(name: &str, expected: &str, found: Option<&Value>) -> Error {
        let found = found.map_or("nothing".into(), |v| format!("{v:?}"));
        Error::argument(format!("attribute {name}"), format!("expected {expected}, found {found}"))
    }

    /// A number.
    ///
    /// # Errors
    /// [`Error::Argument`] where it is missing or something else.
    pub fn number(&self, name: &str) -> Result<f64> {
        match self.values.get(name) {
            Some(Value::Number(v)) => Ok(*v),
            other => Err(Self::wrong(name, "a number", other)),
        }
    }

    /// A number, or `default` where it is missing.
    ///
    /// # Errors
    /// [`Error::Argument`] where it is something else.
    pub fn number_or(&self, name: &str, default: f64) -> Result<f64> {
        if self.has(name) { self.number(name) } else { Ok(default) }
    }

    /// A whole number of at least 0.
    ///
    /// # Errors
    /// [`Error::Argument`] where it is missing or something else.
    pub fn size(&self, name: &str) -> Result<usize> {
        let value = self.number(name)?;
        if value >= 0.0 && value.fract() == 0.0 && value <= f64::from(u32::MAX) {
            return Ok(value as usize);
        }
        Err(Self::wrong(name, "a whole number of at least 0", self.values.get(name)))
    }

    /// As [`Self::size`], or `default` where it is missing.
    ///
    /// # Errors
    /// [`Error::Argument`] where it is something else.
    pub fn size_or(&self, name: &str, default: usize) -> Result<usize> {
        if self.has(name) { self.size(name) } else { Ok(default) }
    }

    /// A whole number, such as an axis.
    ///
    /// # Errors
    /// [`Error::Argument`] where it is missing or something else.
    pub fn integer(&self, name: &str) -> Result<isize> {
        match *self.integers(name)? {
            [number] => Ok(number),
            _ => Err(Self::wrong(name, "a whole number", self.values.get(name))),
        }
    }

    /// As [`Self::integer`], or `default` where it is missing.
    ///
    /// # Errors
    /// [`Error::Argument`] where it is something else.
    pub fn integer_or(&self, name: &str, default: isize) -> Result<isize> {
        if self.has(name) { self.integer(name) } else { Ok(default) }
    }

    /// Several whole numbers; one number is a list of one.
    ///
    /// # Errors
    /// [`Error::Argument`] where it is missing or something else.
    pub fn integers(&self, name: &str) -> Result<Vec<isize>> {
        let whole = |v: &f64| (v.fract() == 0.0 && v.abs() < 2e9).then_some(*v as isize);
        let list = match self.values.get(name) {
            Some(Value::List(list)) => list.iter().map(whole).collect(),
            Some(Value::Number(v)) => whole(v).map(|v| vec![v]),
            _ => None,
        };
        list.ok_or_else(|| Self::wrong(name, "whole numbers", self.values.get(name)))
    }

    /// Several numbers, or `default` where they are missing.
    ///
    /// # Errors
    /// [`Error::Argument`] where it is something else.
    pub fn numbers_or(&self, name: &str, default: &[f64]) -> Result<Vec<f64>> {
        match self.values.get(name) {
            None => Ok(default.to_vec()),
            Some(Value::List(list)) => Ok(list.clone()),
            other => Err(Self::wrong(name, "numbers", other)),
        }
    }

    /// Several whole numbers of at least 0; one number is a list of one.
    ///
    /// # Errors
    /// [`Error::Argument`] where it is missing or something else.
    pub fn sizes(&self, name: &str) -> Result<Vec<usize>> {
        let sizes = self.integers(name)?.into_iter().map(|v| usize::try_from(v).ok()).collect::<Option<Vec<usize>>>();
        sizes.ok_or_else(|| Self::wrong(name, "whole numbers of at least 0", self.values.get(name)))
    }

    /// Two sizes, rows first; one number stands for both.
    ///
    /// # Errors
    /// [`Error::Argument`] where it is missing or something else.
    pub fn pair(&self, name: &str) -> Result<[usize; 2]> {
        match *self.sizes(name)? {
            [both] => Ok([both; 2]),
            [rows, columns] => Ok([rows, columns]),
            _ => Err(Self::wrong(name, "one or two sizes", self.values.get(name))),
        }
    }

    /// As [`Self::pair`], or `default` where it is missing.
    ///
    /// # Errors
    /// [`Error::Argument`] where it is something else.
    pub fn pair_or(&self, name: &str, default: [usize; 2]) -> Result<[usize; 2]> {
        if self.has(name) { self.pair(name) } else { Ok(default) }
    }

    /// A truth value, false where it is missing.
    ///
    /// # Errors
    /// [`Error::Argument`] where it is something else.
    pub fn flag(&self, name: &str) -> Result<bool> {
        Ok(self.number_or(name, 0.0)? != 0.0)
    }

    /// A name, or `default` where it is missing.
    ///
    /// # Errors
    /// [`Error::Argument`] where it is something else.
    pub fn text_or<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str> {
        match self.values.get(name) {
            None => Ok(default),
            Some(Value::Text(text)) => Ok(text),
            other => Err(Self::wrong(name, "a name", other)),
        }
    }
}

/// Attributes from name-value pairs of numbers: `attributes(&[("stride", 2.0)])`.
pub fn attributes(pairs: &[(&str, f64)]) -> Attributes {
    let mut attributes = Attributes::new();
    for (name, value) in pairs {
        attributes.insert(*name, Value::Number(*value));
    }
    attributes
}
