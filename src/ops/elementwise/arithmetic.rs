//! `a + b`, `a - b`, `a * b`, `a / b` and `-a` of tensors and numbers. As every operator they may
//! fail, so each gives a `Result`: `((&a + &b)? * 0.5)?`.

use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::error::Result;
use crate::tensor::Tensor;

/// `number` as a tensor that broadcasts against `like`.
fn scalar(number: f32, like: &Tensor) -> Result<Tensor> {
    Tensor::full(like.gpu(), [], number, like.dtype())
}

/// One binary operator: of two tensors, of a tensor and a number, of a number and a tensor; tensors
/// by reference or by value.
macro_rules! binary {
    ($trait:ident, $method:ident, |$a:ident, $b:ident| $tensors:expr, |$x:ident, $right:ident| $with_number:expr,
     |$left:ident, $y:ident| $of_number:expr) => {
        binary!(@tensors &Tensor, &Tensor, $trait, $method, |$a, $b| $tensors);
        binary!(@tensors &Tensor, Tensor, $trait, $method, |$a, $b| $tensors);
        binary!(@tensors Tensor, &Tensor, $trait, $method, |$a, $b| $tensors);
        binary!(@tensors Tensor, Tensor, $trait, $method, |$a, $b| $tensors);
        binary!(@right &Tensor, $trait, $method, |$x, $right| $with_number);
        binary!(@right Tensor, $trait, $method, |$x, $right| $with_number);
        binary!(@left &Tensor, $trait, $method, |$left, $y| $of_number);
        binary!(@left Tensor, $trait, $method, |$left, $y| $of_number);
    };
    (@tensors $a_type:ty, $b_type:ty, $trait:ident, $method:ident, |$a:ident, $b:ident| $value:expr) => {
        impl $trait<$b_type> for $a_type {
            type Output = Result<Tensor>;

            fn $method(self, other: $b_type) -> Result<Tensor> {
                let ($a, $b): (&Tensor, &Tensor) = (&self, &other);
                $value
            }
        }
    };
    (@right $type:ty, $trait:ident, $method:ident, |$x:ident, $right:ident| $value:expr) => {
        impl $trait<f32> for $type {
            type Output = Result<Tensor>;

            fn $method(self, $right: f32) -> Result<Tensor> {
                let $x: &Tensor = &self;
                $value
            }
        }
    };
    (@left $type:ty, $trait:ident, $method:ident, |$left:ident, $y:ident| $value:expr) => {
        impl $trait<$type> for f32 {
            type Output = Result<Tensor>;

            fn $method(self, other: $type) -> Result<Tensor> {
                let ($left, $y): (f32, &Tensor) = (self, &other);
                $value
            }
        }
    };
}

binary!(Add, add, |a, b| a.add(b), |x, number| x.add_scalar(number), |number, x| x.add_scalar(number));
binary!(Sub, sub, |a, b| a.sub(b), |x, number| x.add_scalar(-number), |number, x| scalar(number, x)?.sub(x));
binary!(Mul, mul, |a, b| a.mul(b), |x, number| x.mul_scalar(number), |number, x| x.mul_scalar(number));
binary!(Div, div, |a, b| a.div(b), |x, number| x.div(&scalar(number, x)?), |number, x| scalar(number, x)?.div(x));

impl Neg for &Tensor {
    type Output = Result<Tensor>;

    fn neg(self) -> Result<Tensor> {
        Tensor::neg(self)
    }
}

impl Neg for Tensor {
    type Output = Result<Tensor>;

    fn neg(self) -> Result<Tensor> {
        Tensor::neg(&self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::error::Error;
    use crate::gpu::Gpu;
    use crate::tensor::DType;

    #[test]
    fn signs_are_the_operators_of_tensors_and_numbers() {
        let gpu = Gpu::new().unwrap();
        let [a, b] = [[1.0f32, 2.0, 6.0], [4.0, 8.0, 3.0]].map(|data| Tensor::from_slice(&gpu, &data, [3]).unwrap());
        let values = |y: Result<Tensor>| y.unwrap().to_vec::<f32>().unwrap();
        assert_eq!(values(&a + &b), [5.0, 10.0, 9.0]);
        assert_eq!(values(a.clone() - &b), [-3.0, -6.0, 3.0]);
        assert_eq!(values(&a * b.clone()), [4.0, 16.0, 18.0]);
        assert_eq!(values(b.clone() / a.clone()), [4.0, 4.0, 0.5]);
        assert_eq!([values(-&a), values(-a.clone())], [[-1.0, -2.0, -6.0]; 2]);
        assert_eq!([values(&a + 1.0), values(1.0 + &a)], [[2.0, 3.0, 7.0]; 2]);
        assert_eq!([values(a.clone() * 0.5), values(0.5 * a.clone())], [[0.5, 1.0, 3.0]; 2]);
        assert_eq!([values(&a - 1.0), values(1.0 - a.clone())], [[0.0, 1.0, 5.0], [0.0, -1.0, -5.0]]);
        assert_eq!([values(&a / 3.0), values(3.0 / &a)], [[1.0 / 3.0, 2.0 / 3.0, 2.0], [3.0, 1.5, 0.5]]);
    }

    #[test]
    fn errors_and_gradients_pass_through() {
        let gpu = Gpu::new().unwrap();
        let (x, other) = (Tensor::full(&gpu, [2], 3.0, DType::F32).unwrap().watch(), Tensor::zeros(&gpu, [3], DType::F32).unwrap());
        assert!(matches!(&x + &other, Err(Error::Shape { .. })));
        let work = || ((1.0 - &x)? * &x)?.sum(&[], false)?.backward();
        assert_eq!(work().unwrap().get(&x).unwrap().to_vec::<f32>().unwrap(), [-5.0; 2]);
    }
}
