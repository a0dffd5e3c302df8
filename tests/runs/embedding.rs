//! Clusters, principal components and t-SNE: closed cases, planted structure, and scikit-learn's
//! results (`tests/reference/embedding`).

use std::path::Path;

use crate::common::{folder, gpu, gpus};
use wgrad::data::Dataset;
use wgrad::evaluate::embedding::{KMeansOptions, TsneOptions, kmeans, normalized_mutual_information, pca, scatter, tsne};
use wgrad::gpu::Gpu;
use wgrad::io::{Archive, HostTensor};
use wgrad::report::WHITE;
use wgrad::tensor::random::{Purpose, Stream};
use wgrad::tensor::{DType, Tensor};

fn digits() -> Archive {
    Archive::load(&folder("WGRAD_EMBEDDING", "embedding").join("digits.safetensors")).unwrap()
}

fn numbers(archive: &Archive, name: &str) -> Vec<f32> {
    let Some(HostTensor::F32(_, data)) = archive.tensors.get(name) else { panic!("{name}") };
    data.clone()
}

fn labels(archive: &Archive) -> Vec<i32> {
    let Some(HostTensor::I32(_, data)) = archive.tensors.get("labels") else { panic!("labels") };
    data.clone()
}

fn upload(gpu: &Gpu, archive: &Archive) -> Tensor {
    Tensor::from_slice(gpu, &numbers(archive, "x"), archive.tensors["x"].shape().clone()).unwrap()
}

/// `each` points around each of `count` corners, far from zero and from each other, and whose they
/// are.
fn blobs(gpu: &Gpu, count: usize, each: usize) -> (Tensor, Vec<i32>) {
    let mut stream = Stream::new(5, Purpose::Test);
    let labels: Vec<i32> = (0..count * each).map(|i| (i % count) as i32).collect();
    let corner = |label: i32, feature: usize| if feature == label as usize { 40.0 } else { 20.0 };
    let rows: Vec<f32> =
        labels.iter().flat_map(|l| (0..6).map(|f| corner(*l, f)).collect::<Vec<_>>()).map(|v| v + stream.normal()).collect();
    (Tensor::from_slice(gpu, &rows, [labels.len(), 6]).unwrap(), labels)
}

fn refused<T>(result: wgrad::error::Result<T>, words: &[&str]) {
    let error = result.err().expect("refused").to_string();
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
}

#[test]
fn clusters_of_blobs_are_the_blobs() {
    for (schedule, gpu) in gpus() {
        let (x, labels) = blobs(&gpu, 5, 31);
        let options = KMeansOptions { n_clusters: 5, n_init: 3, ..Default::default() };
        let found = kmeans(&x, &options).unwrap();
        assert_eq!(normalized_mutual_information(&found.labels, &labels).unwrap(), 1.0, "{schedule}");
        // Noise of variance 1 in 6 features; five means took their share.
        let expected = 6.0 * (155.0 - 5.0);
        approx::assert_abs_diff_eq!(found.inertia / expected, 1.0, epsilon = 0.15);
        let again = kmeans(&x, &options).unwrap();
        assert_eq!((&again.labels, again.inertia), (&found.labels, found.inertia));
        assert_eq!(again.cluster_centers.to_vec::<f32>().unwrap(), found.cluster_centers.to_vec::<f32>().unwrap());
        // Centres are the means of their rows.
        let rows = x.to_vec::<f32>().unwrap();
        for (cluster, center) in found.cluster_centers.to_vec::<f32>().unwrap().chunks(6).enumerate() {
            let own: Vec<&[f32]> = rows.chunks(6).zip(&found.labels).filter(|(_, l)| **l == cluster as i32).map(|(row, _)| row).collect();
            for (feature, value) in center.iter().enumerate() {
                let mean = own.iter().map(|row| f64::from(row[feature])).sum::<f64>() / own.len() as f64;
                approx::assert_abs_diff_eq!(mean, f64::from(*value), epsilon = 1e-4);
            }
        }
        // As many clusters as rows leave nothing.
        let (few, _) = blobs(&gpu, 4, 2);
        let all = kmeans(&few, &KMeansOptions { n_clusters: 8, ..options }).unwrap();
        assert!(all.inertia < 1e-2, "{}", all.inertia);
    }
}

#[test]
fn clusters_of_digits_are_as_good_as_scikit_learns() {
    let (archive, gpu) = (digits(), gpu());
    let found = kmeans(&upload(&gpu, &archive), &KMeansOptions { n_clusters: 10, n_init: 20, ..Default::default() }).unwrap();
    let inertia = numbers(&archive, "kmeans.inertia")[0];
    let nmi = normalized_mutual_information(&found.labels, &labels(&archive)).unwrap();
    println!(
        "inertia {:.1}, scikit-learn's best of 200 {inertia:.1}; NMI {nmi:.4}, {:.4}",
        found.inertia,
        numbers(&archive, "kmeans.nmi")[0]
    );
    assert!((f64::from(inertia) * 0.9999..f64::from(inertia) * 1.01).contains(&found.inertia));
    assert!(nmi > 0.7);
    assert!(found.inertia < found.total && found.iterations > 1);
}

#[test]
fn components_of_digits_are_scikit_learns() {
    let archive = digits();
    for (schedule, gpu) in gpus() {
        let x = upload(&gpu, &archive);
        let found = pca(&x, 3).unwrap();
        let components = found.components.to_vec::<f32>().unwrap();
        let off = components.iter().zip(numbers(&archive, "pca.components")).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{schedule}: components off by {off:.1e}");
        assert!(off < 2e-5, "{schedule}: {off}");
        for (name, values) in
            [("pca.explained_variance", &found.explained_variance), ("pca.explained_variance_ratio", &found.explained_variance_ratio)]
        {
            for (found, expected) in values.iter().zip(numbers(&archive, name)) {
                assert!((found / f64::from(expected) - 1.0).abs() < 1e-5, "{schedule}, {name}: {found} {expected}");
            }
        }
        let products = found.components.matmul_nt(&found.components).unwrap().to_vec::<f32>().unwrap();
        assert!(products.iter().enumerate().all(|(i, v)| (v - f32::from(u8::from(i % 4 == 0))).abs() < 1e-6), "{products:?}");
        let coordinates = found.transform(&x).unwrap().var(&[0], true, false).unwrap().to_f64().unwrap();
        assert!(coordinates.iter().zip(&found.explained_variance).all(|(a, b)| (a / b - 1.0).abs() < 1e-4));
    }
}

/// Points on a plane in five features, and nothing else: two components have all of the variance
/// and span the plane.
#[test]
fn a_planted_plane_is_found() {
    let gpu = gpu();
    let (a, b) = ([0.6f32, 0.0, 0.8, 0.0, 0.0], [0.0f32, 1.0, 0.0, 0.0, 0.0]);
    let mut stream = Stream::new(1, Purpose::Test);
    let rows: Vec<f32> = (0..100)
        .flat_map(|_| {
            let (u, v) = (5.0 * stream.normal(), stream.normal());
            a.iter().zip(&b).map(|(a, b)| 3.0 + u * a + v * b).collect::<Vec<_>>()
        })
        .collect();
    let found = pca(&Tensor::from_slice(&gpu, &rows, [100, 5]).unwrap(), 2).unwrap();
    assert!(found.explained_variance_ratio.iter().sum::<f64>() > 1.0 - 1e-5);
    let components = found.components.to_vec::<f32>().unwrap();
    // Samples of u and v are not quite independent: the components lie in the plane, a little
    // turned.
    for row in components.chunks(5) {
        let along: f32 = [a, b].iter().map(|axis| row.iter().zip(axis).map(|(x, y)| x * y).sum::<f32>().powi(2)).sum();
        assert!((along - 1.0).abs() < 1e-5, "{row:?}");
    }
    assert!(components[2] > 0.75, "{components:?}");
}

/// The part of the 5 nearest neighbours of each point that were near before (Venna and Kaski 2001):
/// 1 where all were.
fn trustworthiness(rows: &[f32], width: usize, points: &[f32]) -> f64 {
    let n = points.len() / 2;
    let order = |values: &[f32], width: usize, i: usize| {
        let row = |j: usize| &values[j * width..(j + 1) * width];
        let distance = |j: usize| row(i).iter().zip(row(j)).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        let mut order: Vec<usize> = (0..n).filter(|j| *j != i).collect();
        order.sort_by(|a, b| distance(*a).total_cmp(&distance(*b)));
        order
    };
    let (k, mut penalty) = (5, 0);
    for i in 0..n {
        let before = order(rows, width, i);
        let rank = |j: usize| before.iter().position(|b| *b == j).unwrap() + 1;
        penalty += order(points, 2, i).iter().take(k).map(|j| rank(*j).saturating_sub(k)).sum::<usize>();
    }
    1.0 - 2.0 / (n * k * (2 * n - 3 * k - 1)) as f64 * penalty as f64
}

#[test]
fn a_map_of_digits_is_as_good_as_scikit_learns() {
    let archive = digits();
    for (schedule, gpu) in gpus() {
        let x = upload(&gpu, &archive);
        let options = TsneOptions { perplexity: 20.0, max_iter: 500 };
        let found = tsne(&x, &options).unwrap();
        let points = found.embedding.to_vec::<f32>().unwrap();
        let trust = trustworthiness(&numbers(&archive, "x"), 64, &points);
        let [expected, trusted] = ["tsne.kl_divergence", "tsne.trustworthiness"].map(|name| f64::from(numbers(&archive, name)[0]));
        println!("{schedule}: divergence {:.4}, scikit-learn {expected:.4}; trustworthiness {trust:.4}, {trusted:.4}", found.kl_divergence);
        assert!((found.kl_divergence / expected - 1.0).abs() < 0.05, "{schedule}");
        assert!(trust > trusted - 0.005, "{schedule}");
        // Once attraction is no longer exaggerated, the divergence falls, and the last steps no
        // longer change much.
        let late: Vec<f64> = found.history.iter().filter(|(step, _)| *step > 250).map(|(_, d)| *d).collect();
        assert!(late.windows(2).all(|pair| pair[1] < pair[0] * 1.001) && late[0] < found.history[4].1, "{:?}", found.history);
        assert_eq!(found.history.last(), Some(&(500, found.kl_divergence)));
        assert_eq!(tsne(&x, &options).unwrap().embedding.to_vec::<f32>().unwrap(), points, "{schedule}: other bits");
    }
}

#[test]
fn joint_probabilities_are_scikit_learns() {
    let (archive, gpu) = (digits(), gpu());
    let x = numbers(&archive, "x");
    let rows: Vec<&[f32]> = x.chunks(64).collect();
    let between = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
    let distances: Vec<f32> = rows.iter().flat_map(|a| rows.iter().map(|b| between(a, b)).collect::<Vec<_>>()).collect();
    let p = Tensor::from_slice(&gpu, &distances, [300, 300]).unwrap().joint_probabilities(20.0).unwrap().to_vec::<f32>().unwrap();
    approx::assert_abs_diff_eq!(p.iter().map(|v| f64::from(*v)).sum::<f64>(), 1.0, epsilon = 1e-5);
    let expected = numbers(&archive, "tsne.p");
    let found = p.chunks(300).step_by(7).flatten();
    // scikit-learn stops its bisection at an entropy within 1e-5.
    let off = found.zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let largest = expected.iter().copied().fold(0.0, f32::max);
    assert!(off < 1e-4 * largest, "{off} of {largest}");
}

#[test]
fn a_map_of_blobs_keeps_them_apart() {
    let gpu = gpu();
    // 123 points: no multiple of 4.
    let (x, labels) = blobs(&gpu, 3, 41);
    let found = tsne(&x, &TsneOptions { perplexity: 10.0, max_iter: 250 }).unwrap();
    let clusters = kmeans(&found.embedding, &KMeansOptions { n_clusters: 3, ..Default::default() }).unwrap();
    assert_eq!(normalized_mutual_information(&clusters.labels, &labels).unwrap(), 1.0);
    assert!(found.kl_divergence < 1.0 && found.history.len() == 5, "{:?}", found.history);
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let gpu = gpu();
    let (x, _) = blobs(&gpu, 3, 4);
    let clusters = |n_clusters| KMeansOptions { n_clusters, ..Default::default() };
    refused(kmeans(&x, &clusters(13)), &["k-means", "1 to 12 clusters of 12 rows, found 13"]);
    refused(kmeans(&x, &clusters(0)), &["found 0"]);
    refused(pca(&x, 7), &["PCA", "1 to 6 components of 12 rows of 6 features, found 7"]);
    refused(tsne(&x, &TsneOptions::default()), &["perplexity of 30", "found 12", "lower it"]);
    refused(tsne(&x, &TsneOptions { perplexity: 0.5, max_iter: 10 }), &["perplexity of 0.5"]);
    refused(tsne(&x, &TsneOptions { perplexity: 3.0, max_iter: 0 }), &["at least 1 step"]);
    let mut rows = x.to_vec::<f32>().unwrap();
    rows[6 * 7 + 2] = f32::NAN;
    let broken = Tensor::from_slice(&gpu, &rows, [12, 6]).unwrap();
    for error in [kmeans(&broken, &clusters(2)).err(), pca(&broken, 2).err(), tsne(&broken, &TsneOptions::default()).err()] {
        let error = error.unwrap().to_string();
        assert!(error.contains("row 7 of the features holds NaN or infinity") && error.contains("leave it out"), "{error}");
    }
    refused(pca(&x.reshape(&[3, 4, 6]).unwrap(), 2), &["[3, 4, 6] must be [N, D]"]);
    refused(normalized_mutual_information(&[0, 1], &[0]), &["2 and 1 labels"]);
}

#[test]
fn rows_that_are_all_alike_stay_together() {
    let gpu = gpu();
    let x = Tensor::full(&gpu, [9, 3], 2.5, DType::F32).unwrap();
    let found = kmeans(&x, &KMeansOptions { n_clusters: 2, ..Default::default() }).unwrap();
    assert_eq!((found.inertia, found.total), (0.0, 0.0));
    assert_eq!(pca(&x, 2).unwrap().explained_variance, [0.0, 0.0]);
    let map = tsne(&x, &TsneOptions { perplexity: 3.0, max_iter: 20 }).unwrap();
    assert!(map.embedding.to_vec::<f32>().unwrap().iter().all(|v| v.is_finite()));
}

#[test]
fn a_picture_has_points_images_and_a_legend() {
    let points = [[0.0, 0.0], [10.0, 5.0], [10.001, 5.001]];
    let names = ["cat".to_string(), "dog".to_string()];
    let labels = [0, 1, 1];
    let picture = scatter(&points, &labels, &names, None).unwrap();
    assert_eq!((picture.height(), picture.get(24, 588).map(|[r, g, _]| [r, g])), (800, Some([98, 160])));
    let images = Dataset::new("x", [40, 40, 1], vec![7; 3 * 1600], labels.to_vec(), names.to_vec()).unwrap();
    let picture = scatter(&points, &labels, &names, Some(&images)).unwrap();
    // Its own pixels, within a frame of its class's colour.
    let row: Vec<_> = (1560..1600).map(|x| picture.get(x, 412).unwrap()).collect();
    assert!(row.contains(&[7; 3]) && row.contains(&[0xff, 0x7f, 0x0e]) && row.contains(&WHITE), "{row:?}");
    refused(scatter(&points, &labels[..2], &names, None), &["found 3, 2 and 2"]);
    refused(scatter(&[[f32::NAN, 0.0]], &[0], &names, None), &["point 0 is not finite"]);
    let folder = tempfile::tempdir().unwrap();
    picture.save(&folder.path().join("x.png")).unwrap();
    assert!(Path::new(&folder.path().join("x.png")).exists());
}
