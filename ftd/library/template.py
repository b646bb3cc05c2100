"""The text of a configuration for one's own images; ``config/own.yaml`` is such a one by hand."""

TEMPLATE = """\
# Made by: ftd init {folder}
# Next: {command}
# Then: ftd show results/{name}, and results/{name}/report.html in a browser.
# Change what you like: what has to be computed again is. All keys: config/README.md.
experiment: {name} # artifacts go to results/{name}
seed: 0 # of the cut, the trainings, the searches
trials: 3 # trainings of every probe, from a common start each: the ± of all numbers
data_root: {root}

# What every image becomes: its middle square, so many pixels wide; channels: 1 for grey, 3 for
# colour. Twice the size takes four times as long. Your images' shorter sides: {sides} pixels.
image: {{size: {size}, channels: {channels}}}

datasets:
  {name}:
    loader: imagefolder # a folder of images for each class
    train: {train} # below data_root{test}
    fit: resize
    # {images} images: {classes}
    # A share (0 to 1) or a number of images; train takes what is left. Networks are trained on
    # train, tasks compared on fisher, networks chosen on val and tested, once, on test.
    # The smallest numbers of a class: {each}.
    parts: {{{parts}}}

# The tasks, in the order in which they arrive: each may start from those before it. A label is any
# list of classes, as in {{animal: [cat, dog], thing: [car]}}; `rest` is all others, of which as
# many are drawn as a named class has. Of few learned tasks one is nearest by chance more easily:
# add yours, of other data sets too.
tasks:
{tasks}

# How tasks are compared; `select` says which measure decides (docs/measures.md says
# why). logme: how well linear regression on a learned network's features explains the new images'
# classes. fisher: the paper's Fisher task distance.
measures: [logme, cka-labels, cka-logme, fisher]
select: {{measure: logme}}

# A probe is a small network that learns a task, in so many passes over train. It should be right
# on 1 - epsilon of val; the report says which are not.
networks: [small-cnn]
probe: {{epochs: 20, epsilon: 0.1}}

# For a few CPU cores: a short search of an architecture for each task, on so many images; what it
# finds is trained on all of train, in so many passes. Few images need many passes: batch norms that
# have seen too few steps make a network say one label always. By the defaults the search is longer.
search: {{samples: 500}}
train: {{epochs: {epochs}}}
"""
