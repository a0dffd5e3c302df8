//! `wgrad embed`: where do an encoder's features lie?

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::device;
use super::output::say;
use super::table::Table;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::evaluate::embedding::{KMeansOptions, TsneOptions, kmeans, normalized_mutual_information, pca, scatter, tsne};
use crate::evaluate::outputs;
use crate::gpu::Gpu;
use crate::io::atomic::{make_folder, write_atomically};
use crate::models::Pixels;
use crate::nn::{Module, Parameters};
use crate::report::csv::csv;
use crate::tensor::Tensor;
use crate::tensor::random::{Purpose, Stream};
use crate::train::{LoadedRun, RunDirectory};

/// What lays features out on a plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// The two directions of largest variance
    Pca,
    /// Neighbours stay neighbours
    Tsne,
}

/// Draw an encoder's features as points on a plane, and say how far their clusters are the classes
#[derive(clap::Args)]
pub(super) struct Embed {
    /// The run's directory
    #[arg(default_value = "runs/latest")]
    run: PathBuf,
    /// The run's data set where it is not where the run found it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What lays them out
    #[arg(long, value_enum, default_value = "tsne")]
    method: Method,
    /// Where METHOD.csv and METHOD.png go [default: RUN/embedding]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Test images, chosen by the seed
    #[arg(long, value_name = "N", default_value_t = 2000)]
    images: usize,
    /// t-SNE: about how many neighbours an image has
    #[arg(long, value_name = "X", default_value_t = 30.0)]
    perplexity: f32,
    /// t-SNE: steps
    #[arg(long, value_name = "N", default_value_t = 500)]
    iterations: usize,
    /// Clusters of k-means [default: as many as classes]
    #[arg(long, value_name = "K")]
    clusters: Option<usize>,
    /// Chooses the images, and where k-means begins
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u32,
    /// Draw the images themselves where they do not cover each other
    #[arg(long)]
    thumbnails: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Embed {
    pub(super) fn run(self) -> Result<ExitCode> {
        let gpu = device::open()?;
        let loaded = LoadedRun::open(&gpu, &self.run, self.data.as_ref())?;
        let test = loaded.recipe.open(Split::Test)?;
        let chosen = self.choose(&test)?;
        let images = Arc::new(test.subset(&chosen)?);
        let clean = loaded.recipe.preprocessing("none", 0, &loaded.train)?;
        let features = |encoder: &dyn Module| {
            let values = outputs(&gpu, encoder, &images, &clean, 0)?;
            Tensor::from_slice(&gpu, &values, [images.len(), values.len() / images.len()])
        };
        let random = Parameters::new(&gpu, loaded.recipe.seed.wrapping_add(0x5eed));
        let random = loaded.recipe.encoder(&random, &loaded.train)?;
        let pixels = Pixels::new(loaded.recipe.input(&loaded.train).numel());
        let trained = features(loaded.network.backbone())?;
        let of = [("trained encoder", trained.clone()), ("random encoder", features(&random)?), ("raw pixels", features(&pixels)?)];

        let options = KMeansOptions { n_clusters: self.clusters.unwrap_or(images.classes()), seed: self.seed, ..Default::default() };
        let (mut found, mut clusters) = (Vec::new(), Vec::new());
        for (name, features) in of {
            let means = kmeans(&features, &options)?;
            let nmi = normalized_mutual_information(&means.labels, images.labels())?;
            let explained = if means.total > 0.0 { 1.0 - means.inertia / means.total } else { 1.0 };
            found.push((name, nmi, explained, means.inertia));
            if clusters.is_empty() {
                clusters = means.labels;
            }
        }
        let (points, said, figures) = self.lay_out(&gpu, &trained)?;
        let files = self.write(&images, &chosen, &points, &clusters)?;
        if self.json {
            let rows = found
                .iter()
                .map(|(name, nmi, explained, inertia)| json!({ "features": name, "nmi": nmi, "explained": explained, "inertia": inertia }));
            let rows: Vec<Value> = rows.collect();
            say(format!(
                "{:#}",
                json!({ "images": images.len(), "clusters": options.n_clusters, "kmeans": rows, "layout": figures, "files": files })
            ))?;
        } else {
            let mut table = Table::new(&["features", "NMI", "variance explained"]);
            for (name, nmi, explained, _) in &found {
                table.row(&[(*name).into(), format!("{nmi:.3}"), format!("{:.1} %", 100.0 * explained)]);
            }
            say(table)?;
            say(format!(
                "k-means of {} clusters on {} test images; NMI with the labels: 1 where clusters are the classes, 0 where they say nothing of them",
                options.n_clusters,
                images.len()
            ))?;
            say(format!("{said}\n{}", files.join("\n")))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// As many of the images as were asked for, in their order.
    fn choose(&self, test: &Dataset) -> Result<Vec<usize>> {
        if self.images < 2 {
            return Err(Error::argument("--images", format!("expected at least 2, found {}", self.images)));
        }
        // A data set has fewer than 2^32 images.
        let mut chosen = Stream::new(self.seed, Purpose::Sample).permutation(test.len() as u32);
        chosen.truncate(self.images);
        chosen.sort_unstable();
        Ok(chosen.into_iter().map(|i| i as usize).collect())
    }

    /// Points, what to say of them, and the same as JSON.
    fn lay_out(&self, gpu: &Gpu, features: &Tensor) -> Result<(Vec<[f32; 2]>, String, Value)> {
        let start = Instant::now();
        let (points, said, figures) = match self.method {
            Method::Pca => {
                let found = pca(features, 2)?;
                let parts = found.explained_variance_ratio.iter().map(|part| format!("{:.1} %", 100.0 * part)).collect::<Vec<_>>();
                let said = format!("PCA: the two components have {} of the variance", parts.join(" and "));
                (found.transform(features)?, said, json!({ "method": "pca", "explained_variance_ratio": found.explained_variance_ratio }))
            }
            Method::Tsne => {
                let options = TsneOptions { perplexity: self.perplexity, max_iter: self.iterations };
                let found = tsne(features, &options)?;
                let seconds = start.elapsed().as_secs_f64();
                let said = format!(
                    "t-SNE: divergence {:.3} after {} steps at perplexity {}, in {seconds:.1} s on {}",
                    found.kl_divergence,
                    self.iterations,
                    self.perplexity,
                    gpu.capabilities().name
                );
                let figures = json!({
                    "method": "tsne", "kl_divergence": found.kl_divergence, "history": found.history, "perplexity": self.perplexity, "seconds": seconds
                });
                (found.embedding, said, figures)
            }
        };
        let values = points.to_vec::<f32>()?;
        let (pairs, _) = values.as_chunks::<2>();
        Ok((pairs.to_vec(), said, figures))
    }

    /// Writes the table and the picture; their paths.
    fn write(&self, images: &Dataset, chosen: &[usize], points: &[[f32; 2]], clusters: &[i32]) -> Result<Vec<String>> {
        let folder = self.out.clone().map_or_else(|| Ok(RunDirectory::open(&self.run)?.0.path().join("embedding")), Ok)?;
        make_folder(&folder)?;
        let name = if self.method == Method::Pca { "pca" } else { "tsne" };
        let row = |(((index, label), cluster), [x, y]): (((&usize, &i32), &i32), &[f32; 2])| {
            let class = usize::try_from(*label).ok().and_then(|l| images.class_names().get(l)).cloned().unwrap_or_default();
            [index.to_string(), label.to_string(), class, cluster.to_string(), x.to_string(), y.to_string()]
        };
        let rows = chosen.iter().zip(images.labels()).zip(clusters).zip(points).map(row);
        let head = ["index", "label", "class", "cluster", "x", "y"].map(String::from);
        let table = csv(std::iter::once(head).chain(rows))?;
        let (table_file, png) = (folder.join(format!("{name}.csv")), folder.join(format!("{name}.png")));
        let picture = scatter(points, images.labels(), images.class_names(), self.thumbnails.then_some(images))?;
        write_atomically(&table_file, table.as_bytes())?;
        picture.save(&png)?;
        Ok([table_file, png].iter().map(|path| path.display().to_string()).collect())
    }
}
