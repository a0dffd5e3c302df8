"""tests/reference/embedding/digits.safetensors: what scikit-learn makes of 300 of its handwritten digits (UCI, CC BY 4.0).

    pip install scikit-learn safetensors

    x, labels                 pixels [300, 64], 0 to 16, and digits
    kmeans.*                  inertia and NMI with the digits of ten clusters, the best of 200 choices of seeds
    pca.*                     three components, signs so that their largest entry is positive, and their variances
    tsne.p                    joint probabilities at perplexity 20, of every seventh row
    tsne.*                    exact t-SNE from PCA, 500 steps: divergence, and trustworthiness of 5 neighbours
"""
import pathlib

import numpy as np
from safetensors.numpy import save_file
from scipy.spatial.distance import squareform
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, _t_sne, trustworthiness
from sklearn.metrics import normalized_mutual_info_score, pairwise_distances

x, labels = (a[:300] for a in load_digits(return_X_y=True))
kmeans = KMeans(10, n_init=200, random_state=0, tol=0).fit(x)
pca = PCA(3).fit(x)
signs = np.sign(pca.components_[np.arange(3), np.abs(pca.components_).argmax(1)])
distances = pairwise_distances(x, squared=True, metric="euclidean").astype(np.float32)
p = squareform(_t_sne._joint_probabilities(distances, 20, 0))
tsne = TSNE(perplexity=20, method="exact", init="pca", max_iter=500, random_state=0)
y = tsne.fit_transform(x)
values = {
    "x": x,
    "kmeans.inertia": [kmeans.inertia_],
    "kmeans.nmi": [normalized_mutual_info_score(labels, kmeans.labels_)],
    "pca.components": pca.components_ * signs[:, None],
    "pca.explained_variance": pca.explained_variance_,
    "pca.explained_variance_ratio": pca.explained_variance_ratio_,
    "tsne.p": p[::7],
    "tsne.kl_divergence": [tsne.kl_divergence_],
    "tsne.trustworthiness": [trustworthiness(x, y, n_neighbors=5)],
}
arrays = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in values.items()}
arrays["labels"] = labels.astype(np.int32)
save_file(arrays, pathlib.Path(__file__).parent / "embedding/digits.safetensors")
print({name: value.tolist() for name, value in arrays.items() if value.size < 5})
