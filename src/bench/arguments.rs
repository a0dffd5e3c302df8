//! What the command line says of a kernel from outside: bindings, parameters, amounts.

use crate::check::Contents;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Param, ParamKind};
use crate::tensor::random::{Purpose, Stream};
use crate::tensor::{DType, Shape, Tensor};

/// What a buffer holds before the kernel runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// Uniform in [-1, 1); whole numbers in 0..100.
    Random,
    /// Everywhere the same.
    Value(f64),
    /// The element's index.
    Index,
}

/// `NAME=TYPE[SIZES]:FILL`.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// The variable of the shader.
    pub name: String,
    /// The element type; `u32` buffers are held as `i32`.
    pub dtype: DType,
    /// The sizes.
    pub shape: Shape,
    /// The contents.
    pub fill: Fill,
}

fn wrong(what: &str, text: &str, expected: &str) -> Error {
    Error::argument(what, format!("expected {expected}, found \"{text}\""))
}

impl Bound {
    /// Reads `x=f32[1024,1024]:random`; without a fill, random.
    ///
    /// # Errors
    /// [`Error::Argument`] with the form.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            wrong("--bind", text, "NAME=TYPE[SIZE,..]:FILL with TYPE f32, f16, i32 or u32 and FILL random, zero, one, index or a number")
        };
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (kind, rest) = rest.split_once('[').ok_or_else(wrong)?;
        let (sizes, fill) = rest.split_once(']').ok_or_else(wrong)?;
        let dtype = match kind.trim() {
            "f32" => DType::F32,
            "f16" => DType::F16,
            "i32" | "u32" => DType::I32,
            _ => return Err(wrong()),
        };
        let sizes: Vec<usize> = sizes.split(',').map(|size| size.trim().parse().map_err(|_| wrong())).collect::<Result<_>>()?;
        let fill = match fill.strip_prefix(':').unwrap_or(fill) {
            "" | "random" => Fill::Random,
            "zero" => Fill::Value(0.0),
            "one" => Fill::Value(1.0),
            "index" => Fill::Index,
            number => Fill::Value(number.parse().map_err(|_| wrong())?),
        };
        let name = name.trim().to_string();
        if name.is_empty() {
            return Err(wrong());
        }
        Ok(Self { name, dtype, shape: Shape::from(sizes), fill })
    }

    /// What it holds, always the same.
    fn values(&self) -> Vec<f64> {
        let seed = self.name.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let mut stream = Stream::new(seed, Purpose::Test);
        let value = |index: usize| match (self.fill, self.dtype) {
            (Fill::Random, DType::I32) => f64::from(stream.below(100)),
            (Fill::Random, _) => f64::from(stream.uniform()) * 2.0 - 1.0,
            (Fill::Value(value), _) => value,
            (Fill::Index, _) => index as f64,
        };
        (0..self.shape.numel()).map(value).collect()
    }

    /// The buffer, always with the same contents.
    ///
    /// # Errors
    /// Out of memory; f16 on an adapter that cannot store it.
    pub fn tensor(&self, gpu: &Gpu) -> Result<Tensor> {
        let values = self.values();
        match self.dtype {
            DType::F32 => Tensor::from_slice(gpu, &values.iter().map(|v| *v as f32).collect::<Vec<_>>(), &self.shape),
            DType::F16 => Tensor::from_slice(gpu, &values.iter().map(|v| half::f16::from_f64(*v)).collect::<Vec<_>>(), &self.shape),
            DType::I32 => Tensor::from_slice(gpu, &values.iter().map(|v| *v as i32).collect::<Vec<_>>(), &self.shape),
        }
    }

    /// The same contents in host memory.
    pub fn contents(&self) -> Contents {
        let bytes = |value: f64| match self.dtype {
            DType::F32 => (value as f32).to_le_bytes().to_vec(),
            DType::F16 => half::f16::from_f64(value).to_le_bytes().to_vec(),
            DType::I32 => (value as i32).to_le_bytes().to_vec(),
        };
        Contents { name: self.name.clone(), bytes: self.values().into_iter().flat_map(bytes).collect() }
    }
}

/// The parameters that a shader declares, of `1024,0.5` in their order or of `n=1024,scale=0.5` in
/// any.
///
/// # Errors
/// [`Error::Argument`] listing what is declared, where names or numbers are not those.
pub fn params(text: &str, declared: &[(String, ParamKind)]) -> Result<Vec<Param>> {
    let list: Vec<String> = declared.iter().map(|(name, kind)| format!("{name}: {kind:?}").to_lowercase()).collect();
    let wrong = |what: String| {
        Error::argument(
            "--params",
            format!("{what}; the shader declares {}", if list.is_empty() { "none".into() } else { list.join(", ") }),
        )
    };
    let words: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    if words.len() != declared.len() {
        return Err(wrong(format!("{} were given", words.len())));
    }
    let named = words.iter().filter(|word| word.contains('=')).count();
    if named != 0 && named != words.len() {
        return Err(wrong("either all or none have names".into()));
    }
    let find = |index: usize, name: &str| -> Option<&str> {
        if named == 0 {
            return words.get(index).copied();
        }
        words.iter().filter_map(|word| word.split_once('=')).find(|(given, _)| given.trim() == name).map(|(_, value)| value)
    };
    let one = |(index, (name, kind)): (usize, &(String, ParamKind))| -> Result<Param> {
        let text = find(index, name).ok_or_else(|| wrong(format!("{name} is missing")))?;
        let number = expression(text)?;
        let whole = |low: f64, high: f64| {
            if number.fract() == 0.0 && (low..=high).contains(&number) {
                Ok(number)
            } else {
                Err(wrong(format!("{name} = {text} does not fit")))
            }
        };
        Ok(match kind {
            ParamKind::U32 => Param::U32(whole(0.0, f64::from(u32::MAX))? as u32),
            ParamKind::I32 => Param::I32(whole(f64::from(i32::MIN), f64::from(i32::MAX))? as i32),
            ParamKind::F32 => Param::F32(number as f32),
        })
    };
    declared.iter().enumerate().map(one).collect()
}

/// Numbers, `+ - * /` and parentheses: `2*1024*(512+512)`.
///
/// # Errors
/// [`Error::Argument`] where it is anything else.
pub fn expression(text: &str) -> Result<f64> {
    let mut parser = Parser { rest: text.trim() };
    let value = parser.sum();
    match value {
        Some(value) if parser.rest.is_empty() => Ok(value),
        _ => Err(wrong("number", text, "numbers with + - * / and parentheses")),
    }
}

/// What is left of an expression.
struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn take(&mut self, symbol: char) -> bool {
        let found = self.rest.strip_prefix(symbol);
        self.rest = found.unwrap_or(self.rest).trim_start();
        found.is_some()
    }

    fn sum(&mut self) -> Option<f64> {
        let mut value = self.product()?;
        loop {
            value = if self.take('+') {
                value + self.product()?
            } else if self.take('-') {
                value - self.product()?
            } else {
                return Some(value);
            };
        }
    }

    fn product(&mut self) -> Option<f64> {
        let mut value = self.atom()?;
        loop {
            value = if self.take('*') {
                value * self.atom()?
            } else if self.take('/') {
                value / self.atom()?
            } else {
                return Some(value);
            };
        }
    }

    fn atom(&mut self) -> Option<f64> {
        if self.take('-') {
            return Some(-self.atom()?);
        }
        if self.take('(') {
            let value = self.sum()?;
            return self.take(')').then_some(value);
        }
        // Digits, with an exponent whose sign belongs to it.
        let mut before = ' ';
        let is_part = |c: char| {
            let part = c.is_ascii_alphanumeric() || c == '.' || (matches!(c, '+' | '-') && matches!(before, 'e' | 'E'));
            before = c;
            !part
        };
        let end = self.rest.find(is_part).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.trim_start();
        number.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_cmp)]
    use super::*;

    #[test]
    fn expressions_follow_the_rules_of_arithmetic() {
        for (text, value) in [
            ("2*1024*1024", 2_097_152.0),
            ("1 + 2*3", 7.0),
            ("(1+2)*3", 9.0),
            ("-4/2 - 1", -3.0),
            ("1e3", 1e3),
            ("2.5e-1*4", 1.0),
            ("8/2/2", 2.0),
        ] {
            assert_eq!(expression(text).unwrap(), value, "{text}");
        }
        for text in ["", "2*", "1 2", "(1", "x", "1)", "2**3"] {
            assert!(expression(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bindings_are_read_or_refused() {
        let bound = Bound::parse("x=f32[4, 2]:index").unwrap();
        assert_eq!(bound, Bound { name: "x".into(), dtype: DType::F32, shape: Shape::from([4, 2]), fill: Fill::Index });
        assert_eq!(Bound::parse("y=u32[3]").unwrap().dtype, DType::I32);
        assert_eq!(Bound::parse("y=f16[3]:-0.5").unwrap().fill, Fill::Value(-0.5));
        for text in ["x", "x=f32", "x=f64[3]", "x=f32[3", "x=f32[a]", "x=f32[3]:soup", "=f32[3]"] {
            let error = Bound::parse(text).unwrap_err().to_string();
            assert!(error.contains("NAME=TYPE[SIZE,..]:FILL") && error.contains(text), "{error}");
        }
    }

    #[test]
    fn params_come_in_order_or_by_name() {
        let declared = [("n".to_string(), ParamKind::U32), ("scale".to_string(), ParamKind::F32)];
        let expected = vec![Param::U32(1024), Param::F32(0.5)];
        assert_eq!(params("1024,0.5", &declared).unwrap(), expected);
        assert_eq!(params("scale=1/2, n=2*512", &declared).unwrap(), expected);
        for (text, words) in
            [("1024", "1 were given"), ("-1,0.5", "n = -1 does not fit"), ("n=1,0.5", "all or none"), ("m=1,scale=2", "n is missing")]
        {
            let error = params(text, &declared).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("n: u32, scale: f32"), "{error}");
        }
    }
}
