//! Eigenvalues of small symmetric matrices, on the host in float64: Householder's reflections to a
//! tridiagonal matrix, then bisection by Sturm's count of the eigenvalues below a number (Golub and
//! Van Loan, sections 8.3 and 8.4). No eigenvectors.

/// The eigenvalues of a symmetric matrix, given row by row, in ascending order; each to within
/// 1e-12 of the largest magnitude.
pub fn eigenvalues(rows: Vec<Vec<f64>>) -> Vec<f64> {
    let (diagonal, beside) = tridiagonal(rows);
    // Gershgorin's circles hold them all.
    let radius = |at: usize| beside.get(at).map_or(0.0, |e| e.abs());
    let reach = |(at, d): (usize, &f64)| d.abs() + radius(at) + at.checked_sub(1).map_or(0.0, radius);
    let reaches: Vec<f64> = diagonal.iter().enumerate().map(reach).collect();
    if reaches.iter().any(|reach| !reach.is_finite()) {
        return vec![f64::NAN; diagonal.len()];
    }
    let bound = reaches.into_iter().fold(0.0, f64::max);
    let squares: Vec<f64> = std::iter::once(0.0).chain(beside.iter().map(|e| e * e)).collect();
    let below = |x: f64| {
        let mut pivot = 1.0;
        let negative = |(d, square): (&f64, &f64)| {
            pivot = d - x - square / pivot;
            // A pivot of 0 counts as one beside it.
            pivot = if pivot.abs() < f64::MIN_POSITIVE { -f64::MIN_POSITIVE } else { pivot };
            pivot < 0.0
        };
        diagonal.iter().zip(&squares).map(negative).filter(|n| *n).count()
    };
    let mut found = Vec::with_capacity(diagonal.len());
    bisect(&below, (-bound, 0), (bound, diagonal.len()), 1e-12 * bound, &mut found);
    found
}

/// The eigenvalues between two numbers, each with the count of eigenvalues below it.
fn bisect(below: &impl Fn(f64) -> usize, low: (f64, usize), high: (f64, usize), width: f64, found: &mut Vec<f64>) {
    let middle = 0.5 * (low.0 + high.0);
    if high.1 <= low.1 {
        return;
    }
    if high.0 - low.0 <= width || middle <= low.0 || middle >= high.0 {
        found.extend(std::iter::repeat_n(middle, high.1 - low.1));
        return;
    }
    let cut = (middle, below(middle).clamp(low.1, high.1));
    bisect(below, low, cut, width, found);
    bisect(below, cut, high, width, found);
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The diagonal and what stands beside it of a tridiagonal matrix with the same eigenvalues. Each
/// round takes off the last row and column, by a reflection that leaves a single number beside the
/// diagonal.
fn tridiagonal(mut rows: Vec<Vec<f64>>) -> (Vec<f64>, Vec<f64>) {
    let (mut diagonal, mut beside) = (Vec::new(), Vec::new());
    while let Some(mut v) = rows.pop() {
        diagonal.push(v.pop().unwrap_or(0.0));
        rows.iter_mut().for_each(|row| row.truncate(v.len()));
        let norm = dot(&v, &v).sqrt();
        let Some(last) = v.last_mut() else { break };
        let number = if *last > 0.0 { -norm } else { norm };
        beside.push(number);
        *last -= number;
        let square = dot(&v, &v);
        if square == 0.0 {
            continue;
        }
        // A - v w^T - w v^T with p = 2 A v / v.v and w = p - (p.v / v.v) v.
        let mut w: Vec<f64> = rows.iter().map(|row| 2.0 * dot(row, &v) / square).collect();
        let along = dot(&w, &v) / square;
        w.iter_mut().zip(&v).for_each(|(w, v)| *w -= along * v);
        for (row, (&vi, &wi)) in rows.iter_mut().zip(v.iter().zip(&w)) {
            row.iter_mut().zip(v.iter().zip(&w)).for_each(|(a, (v, w))| *a -= vi * w + wi * v);
        }
    }
    (diagonal, beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvalues_are_those_of_known_matrices() {
        assert_eq!(eigenvalues(vec![]), Vec::<f64>::new());
        approx::assert_abs_diff_eq!(eigenvalues(vec![vec![3.0]])[0], 3.0, epsilon = 1e-11);
        assert_eq!(eigenvalues(vec![vec![0.0; 3]; 3]), [0.0; 3]);
        // 2 on the diagonal, -1 beside it: 2 - 2 cos(k pi / (n + 1)).
        let n = 33;
        let second = |i: usize, j: usize| [2.0, -1.0].get(i.abs_diff(j)).copied().unwrap_or(0.0);
        let found = eigenvalues((0..n).map(|i| (0..n).map(|j| second(i, j)).collect()).collect());
        for (k, value) in (1..).zip(&found) {
            let expected = 2.0 - 2.0 * (f64::from(k) * std::f64::consts::PI / (n + 1) as f64).cos();
            assert!((value - expected).abs() < 1e-10, "{k}: {value}, {expected}");
        }
        assert!(eigenvalues(vec![vec![f64::NAN, 0.0], vec![0.0, 1.0]]).iter().all(|v| v.is_nan()));
    }

    /// A reflected diagonal, so that every element of the matrix is in use; eigenvalues come twice,
    /// negative, and 0.
    #[test]
    fn eigenvalues_survive_a_change_of_basis() {
        let n = 65usize;
        let values: Vec<f64> = (0..n).map(|i| (i / 2) as f64 - 10.0).collect();
        let v: Vec<f64> = (0..n).map(|i| ((i * i + 1) as f64).sin()).collect();
        let square = dot(&v, &v);
        // H D H with H = I - 2 v v^T / v.v.
        let h = |i: usize, j: usize| f64::from(u8::from(i == j)) - 2.0 * v[i] * v[j] / square;
        let element = |i: usize, j: usize| (0..n).map(|k| h(i, k) * values[k] * h(k, j)).sum::<f64>();
        let found = eigenvalues((0..n).map(|i| (0..n).map(|j| element(i, j)).collect()).collect());
        assert_eq!(found.len(), n);
        for (value, expected) in found.iter().zip(&values) {
            approx::assert_abs_diff_eq!(value, expected, epsilon = 1e-9);
        }
    }
}
