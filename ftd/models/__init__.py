"""Networks: probes' bodies, and cells of operations that a genotype names."""

from ftd.parts import register_network, register_operation

register_network("small-cnn", "ftd.models.bodies:small_cnn", pooled=False)
for _name in ("vgg16", "resnet18", "densenet121"):
    register_network(_name, f"ftd.models.bodies:{_name}")

for _name in (
    "none",
    "skip_connect",
    "max_pool_3x3",
    "avg_pool_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "conv_7x1_1x7",
):
    register_operation(_name, f"ftd.models.operations:{_name}")
