//! Expressions of several tensors, built with Rust's operators: what [`fuse`](super::fuse::fuse)
//! makes one kernel of.

use std::ops::{Add, Div, Mul, Neg, Sub};

use super::binary::{self, reads};
use super::map;
use super::pointwise::Text;
use crate::error::{Error, Result};

/// One step of an expression, of steps before it.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// An input of the operator.
    Input(usize),
    /// A number: a parameter of the kernel, so that another one needs no other kernel.
    Number(f32),
    /// A map by its name.
    Map(String, usize),
    /// A pair by its name.
    Pair(String, usize, usize),
}

/// `(x * y + 1.0).relu()`: maps ([`MAPS`](super::map::MAPS)) and pairs of inputs and numbers. Equal
/// parts are computed once.
#[derive(Debug, Clone)]
pub struct Expression {
    steps: Vec<Step>,
    /// The step that is the result.
    value: usize,
}

impl Expression {
    /// Input `index` of the operator.
    pub fn input(index: usize) -> Self {
        Self { steps: vec![Step::Input(index)], value: 0 }
    }

    /// The expression that `text` gives in reverse Polish notation: `x0 x1 mul 1 add relu`, with
    /// inputs `x0`, `x1`, .., numbers, and names of maps and pairs.
    ///
    /// # Errors
    /// [`Error::Argument`] where a name is unknown or operands are missing or left.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| Error::argument("fuse", format!("{what} in \"{text}\""));
        let mut stack: Vec<Self> = Vec::new();
        for word in text.split_whitespace() {
            let missing = || wrong(&format!("an operand of \"{word}\" is missing"));
            let input = word.strip_prefix('x').and_then(|n| n.parse().ok());
            let next = if let Some(index) = input {
                Self::input(index)
            } else if let Ok(number) = word.parse::<f32>() {
                number.into()
            } else if find_map(word).is_ok() {
                stack.pop().ok_or_else(missing)?.map(word)
            } else if find_pair(word).is_ok() {
                let (b, a) = (stack.pop().ok_or_else(missing)?, stack.pop().ok_or_else(missing)?);
                a.pair(word, b)
            } else {
                return Err(wrong(&format!("\"{word}\" is neither an input, a number, a map nor a pair")));
            };
            stack.push(next);
        }
        match (stack.pop(), stack.is_empty()) {
            (Some(value), true) => Ok(value),
            (Some(_), false) => Err(wrong("operands are left")),
            (None, _) => Err(wrong("there is nothing")),
        }
    }

    fn push(&mut self, step: Step) -> usize {
        // Numbers are never merged: two that are equal today may differ tomorrow, which must not
        // need another kernel.
        let known = self.steps.iter().position(|s| *s == step && !matches!(s, Step::Number(_)));
        known.unwrap_or_else(|| {
            self.steps.push(step);
            self.steps.len() - 1
        })
    }

    /// The map called `name` of this: `x.map("softplus")`. One that does not exist, or has
    /// constants, is an error of [`fuse`](super::fuse::fuse).
    #[must_use]
    pub fn map(mut self, name: &str) -> Self {
        self.value = self.push(Step::Map(name.into(), self.value));
        self
    }

    /// The pair called `name` of this and another: `x.pair("maximum", 0.0)`.
    #[must_use]
    pub fn pair(mut self, name: &str, other: impl Into<Expression>) -> Self {
        let other = other.into();
        let mut place = Vec::with_capacity(other.steps.len());
        let moved = |place: &[usize], at: usize| place.get(at).copied().unwrap_or(0);
        for step in other.steps {
            let step = match step {
                Step::Map(name, x) => Step::Map(name, moved(&place, x)),
                Step::Pair(name, a, b) => Step::Pair(name, moved(&place, a), moved(&place, b)),
                leaf => leaf,
            };
            place.push(self.push(step));
        }
        let b = moved(&place, other.value);
        self.value = self.push(Step::Pair(name.into(), self.value, b));
        self
    }

    /// The larger of the two.
    #[must_use]
    pub fn maximum(self, other: impl Into<Expression>) -> Self {
        self.pair("maximum", other)
    }

    /// The smaller of the two.
    #[must_use]
    pub fn minimum(self, other: impl Into<Expression>) -> Self {
        self.pair("minimum", other)
    }

    /// max(x, 0)
    #[must_use]
    pub fn relu(self) -> Self {
        self.map("relu")
    }

    /// 1 / (1 + e^-x)
    #[must_use]
    pub fn sigmoid(self) -> Self {
        self.map("sigmoid")
    }

    /// e^x
    #[must_use]
    pub fn exp(self) -> Self {
        self.map("exp")
    }

    /// The square root.
    #[must_use]
    pub fn sqrt(self) -> Self {
        self.map("sqrt")
    }

    /// Checks that all maps and pairs exist.
    pub(super) fn check(&self) -> Result<()> {
        self.steps.iter().try_for_each(|step| match step {
            Step::Map(name, _) => find_map(name).map(|_| ()),
            Step::Pair(name, ..) => find_pair(name).map(|_| ()),
            _ => Ok(()),
        })
    }

    /// The inputs that it reads.
    pub(super) fn inputs(&self) -> Vec<usize> {
        self.steps.iter().filter_map(|s| if let Step::Input(i) = s { Some(*i) } else { None }).collect()
    }

    /// Steps that are computed.
    pub(super) fn operations(&self) -> usize {
        self.steps.iter().filter(|s| matches!(s, Step::Map(..) | Step::Pair(..))).count()
    }

    /// The numbers by the names that they have in a kernel.
    pub(super) fn numbers(&self) -> Vec<(String, f32)> {
        let number = |(at, step): (usize, &Step)| if let Step::Number(v) = step { Some((format!("v{at}"), *v)) } else { None };
        self.steps.iter().enumerate().filter_map(number).collect()
    }

    /// Its value in float64.
    pub(super) fn evaluate(&self, inputs: &dyn Fn(usize) -> f64) -> f64 {
        let mut values: Vec<f64> = Vec::with_capacity(self.steps.len());
        let at = |values: &[f64], i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        for step in &self.steps {
            values.push(match step {
                Step::Input(i) => inputs(*i),
                Step::Number(v) => f64::from(*v),
                Step::Map(name, x) => find_map(name).map_or(f64::NAN, |d| (d.reference)(at(&values, *x), 0.0, 0.0)),
                Step::Pair(name, a, b) => find_pair(name).map_or(f64::NAN, |d| (d.reference)(at(&values, *a), at(&values, *b))),
            });
        }
        at(&values, self.value)
    }

    /// What a step is called in a kernel.
    fn name(&self, at: usize) -> String {
        match self.steps.get(at) {
            Some(Step::Input(i)) => format!("x{i}"),
            Some(Step::Number(_)) => format!("V(p.v{at})"),
            _ => format!("t{at}"),
        }
    }

    /// The kernel of its value.
    pub(super) fn forward(&self) -> Text {
        self.text(vec![self.name(self.value)], Vec::new())
    }

    /// The kernel of `dy` times its derivatives by `inputs`: the chain rule, from the result back
    /// to them.
    pub(super) fn backward(&self, inputs: &[usize]) -> Text {
        let mut slopes: Vec<Option<String>> = vec![None; self.steps.len()];
        if let Some(slot) = slopes.get_mut(self.value) {
            *slot = Some("dy".into());
        }
        let mut statements = Vec::new();
        for (at, step) in self.steps.iter().enumerate().rev() {
            let Some(dy) = slopes.get(at).cloned().flatten() else { continue };
            let terms = match step {
                Step::Map(name, x) => vec![(*x, format!("back_{name}({dy}, {}, {})", self.name(*x), self.name(at)))],
                Step::Pair(name, a, b) => {
                    let term = |side| format!("pair_{name}_{side}({dy}, {}, {})", self.name(*a), self.name(*b));
                    vec![(*a, term("a")), (*b, term("b"))]
                }
                _ => Vec::new(),
            };
            for (to, term) in terms {
                let Some(slope) = slopes.get_mut(to) else { continue };
                let before = slope.take().map_or(String::new(), |s| format!("{s} + "));
                let name = format!("g{}", statements.len());
                statements.push(format!("let {name} = {before}{term};"));
                *slope = Some(name);
            }
        }
        let of = |input: &usize| self.steps.iter().position(|s| *s == Step::Input(*input)).and_then(|at| slopes.get(at).cloned().flatten());
        let results = inputs.iter().map(|i| of(i).unwrap_or_else(|| "V(0.0)".into())).collect();
        self.text(results, statements)
    }

    /// The kernel of `results`, of all steps and `more` statements what these need.
    fn text(&self, results: Vec<String>, more: Vec<String>) -> Text {
        let value = |(at, step): (usize, &Step)| match step {
            Step::Map(name, x) => Some(format!("let t{at} = map_{name}({});", self.name(*x))),
            Step::Pair(name, a, b) => Some(format!("let t{at} = pair_{name}({}, {});", self.name(*a), self.name(*b))),
            _ => None,
        };
        let mut statements: Vec<String> = Vec::new();
        let all: Vec<String> = self.steps.iter().enumerate().filter_map(value).chain(more).collect();
        for statement in all.into_iter().rev() {
            let name = statement.split_whitespace().nth(1).unwrap_or_default();
            if results.iter().chain(&statements).any(|s| reads(s, name)) {
                statements.push(statement);
            }
        }
        statements.reverse();
        let mut names: Vec<&str> =
            self.steps.iter().filter_map(|s| if let Step::Map(n, _) | Step::Pair(n, ..) = s { Some(n.as_str()) } else { None }).collect();
        names.sort_unstable();
        names.dedup();
        let maps = names.iter().filter_map(|n| find_map(n).ok());
        let maps = maps
            .map(|d| minijinja::context! { name => d.name, forward => d.forward, derivative => d.derivative, masked => d.masked })
            .collect();
        let pairs = names.iter().filter_map(|n| find_pair(n).ok());
        let pairs =
            pairs.map(|d| minijinja::context! { name => d.name, forward => d.forward, derivatives => d.derivatives.to_vec() }).collect();
        Text { results, statements, maps, pairs }
    }
}

fn find_map(name: &str) -> Result<&'static map::Definition> {
    let found = map::MAPS.iter().find(|d| d.name == name && d.constants.is_empty());
    found.ok_or_else(|| Error::argument("fuse", format!("there is no map \"{name}\" without constants")))
}

fn find_pair(name: &str) -> Result<&'static binary::Definition> {
    let found = binary::PAIRS.iter().find(|d| d.name == name);
    found.ok_or_else(|| Error::argument("fuse", format!("there is no pair \"{name}\"")))
}

impl From<f32> for Expression {
    fn from(number: f32) -> Self {
        Self { steps: vec![Step::Number(number)], value: 0 }
    }
}

impl From<&Expression> for Expression {
    fn from(other: &Expression) -> Self {
        other.clone()
    }
}

macro_rules! operators {
    ($($operator:ident $method:ident),* $(,)?) => {$(
        impl<E: Into<Expression>> $operator<E> for Expression {
            type Output = Expression;
            fn $method(self, other: E) -> Expression {
                self.pair(stringify!($method), other)
            }
        }
        impl<E: Into<Expression>> $operator<E> for &Expression {
            type Output = Expression;
            fn $method(self, other: E) -> Expression {
                self.clone().pair(stringify!($method), other)
            }
        }
        impl $operator<Expression> for f32 {
            type Output = Expression;
            fn $method(self, other: Expression) -> Expression {
                Expression::from(self).pair(stringify!($method), other)
            }
        }
    )*};
}

operators!(Add add, Sub sub, Mul mul, Div div);

impl Neg for Expression {
    type Output = Expression;
    fn neg(self) -> Expression {
        self.map("neg")
    }
}
