"""Published squared distances: Le et al. 2022, mean over 10 trials; rows source, columns target."""

import numpy as np

_TEXT = {
    "mnist": """
        vgg16           resnet18        densenet121
        0     .3970 .7951 .8353  0     .2189 .5084 .5953  0     .2117 .4989 .5547
        .1366 0     .7222 .7993  .2925 0     .3327 .4615  .2364 0     .3690 .4748
        .3699 .6174 0     .5502  .4200 .5843 0     .2262  .3604 .4303 0     .2177
        .5057 .5534 .1882 0      .4622 .4263 .1930 0      .3981 .3633 .1258 0
    """,
    "cifar10": """
        vgg16           resnet18        densenet121
        0     .1691 .6109 .7583  0     .1520 .3415 .5084  0     .1606 .4508 .5158
        .1490 0     .6416 .7325  .1366 0     .3303 .4167  .1084 0     .3872 .4583
        .4623 .4692 0     .5114  .3252 .3314 0     .2322  .2654 .2801 0     .2323
        .3646 .4161 .3693 0      .2332 .2502 .2068 0      .2545 .2350 .2095 0
    """,
    "cifar100": """
        vgg16           resnet18        densenet121
        0     .2895 .5283 .5819  0     .1378 .2849 .3550  0     .1613 .1747 .3179
        .2364 0     .4535 .5580  .1485 0     .2720 .2776  .1594 0     .3012 .3130
        .1753 .3986 0     .1710  .0996 .2232 0     .1119  .0996 .2283 0     .0945
        .2713 .4066 .0792 0      .2068 .2360 .0878 0      .1975 .2787 .0951 0
    """,
    "imagenet": """
        vgg16           resnet18        densenet121
        0     .1898 .3291 .4288  0     .1912 .3313 .4728  0     .2621 .4010 .4483
        .1294 0     .2483 .3749  .2412 0     .2921 .3920  .2081 0     .2417 .3341
        .2506 .3983 0     .2135  .3176 .4472 0     .2072  .3924 .3122 0     .2376
        .2933 .4102 .1879 0      .4401 .4523 .2271 0      .5102 .4734 .2078 0
    """,
}


def _matrices(text: str) -> dict[str, np.ndarray]:
    names, *rows = text.strip().splitlines()
    wide = np.array([[float(value) for value in row.split()] for row in rows])
    return dict(zip(names.split(), np.hsplit(wide, 3), strict=True))


MATRICES = {dataset: _matrices(text) for dataset, text in _TEXT.items()}
MATRICES["tiny-imagenet"] = MATRICES["imagenet"]  # other classes, related to each other alike
"""By data set and network: squared distances [source, target], tasks 0 to 3."""


TASKONOMY = [
    *("euclidean-distance", "z-depth", "occlusion-edges", "texture-edges", "keypoints-2d"),
    *("keypoints-3d", "normals", "curvatures", "reshading", "autoencoding"),
]
"""Taskonomy's dense tasks in the paper's order."""


def _rows(text: str) -> np.ndarray:
    return np.array([[float(value) for value in row.split()] for row in text.strip().splitlines()])


TASKONOMY_DISTANCES = _rows("""
    0    .04  .48  .11  .28  .20  .23  .26  .12  .08
    .04  0    .44  .10  .30  .21  .18  .27  .12  .09
    .49  .44  0    .34  .40  .28  .37  .41  .43  .33
    .11  .10  .52  0    .18  .21  .26  .33  .16  .07
    .29  .29  .46  .17  0    .10  .22  .43  .26  .24
    .20  .19  .44  .24  .10  0    .23  .28  .17  .25
    .24  .20  .37  .24  .24  .19  0    .18  .22  .13
    .26  .31  .43  .28  .41  .39  .18  0    .30  .37
    .14  .12  .45  .16  .28  .15  .21  .23  0    .11
    .08  .09  .53  .07  .23  .25  .12  .33  .11  0
""").T
"""Of Le et al. 2022, read off its ten line plots (± .01), [source, target]: a panel's task is taken
for the target, which the paper does not say, and which makes little difference."""
TASKONOMY_AFFINITIES = _rows("""
      53.41   49.77   30.82 0.01212 0.05791   12.18   8.321   37.71   38.16  0.0148
      51.17   54.43   28.03 0.01676 0.06237   14.61   10.35   24.22   38.11 0.01466
      30.73   34.83    54.3 0.02443 0.06086   24.61      21    23.5   34.79  0.0168
       9.34   8.906   5.635   47.26  0.1032   6.761   2.342   9.851   7.263 0.01279
      8.055   7.331   4.961   4.542   59.79   5.956   1.719   9.567   6.343   1.095
      31.72   31.03   32.68 0.03263 0.06433   61.02   17.67   27.37   24.62 0.01655
      29.98   29.52   52.92 0.01972 0.05685   41.37   143.2   38.44   42.79 0.01468
      22.44   25.69   30.39 0.03947 0.06236   42.65   18.66      34    25.5 0.01939
      46.38   42.17   28.41  0.0145 0.05879   18.31   23.21   24.85   52.19 0.01609
      7.205   7.499   4.069   3.237   13.64   6.227   1.471   9.534    6.11    4.11
""")
"""Of Zamir et al. 2018 (Taskonomy, first order, all of the training data, times 1,000): what a
source's network is worth to a target, [source, target]; sources compare within a target alone."""


def nearest(matrix: np.ndarray) -> list[int]:
    """The nearest other source of every target."""
    return [int(i) for i in (matrix + np.diag([np.inf] * len(matrix))).argmin(0)]
