"""Networks: probes' bodies, and cells of operations that a genotype names."""

from ftd.config.search_keys import DARTS_OPERATIONS
from ftd.parts import register_network, register_operation

register_network("small-cnn", "ftd.models.bodies:small_cnn", pooled=False)
for _name in ("vgg16", "resnet18", "densenet121"):
    register_network(_name, f"ftd.models.bodies:{_name}")

for _name in DARTS_OPERATIONS:
    register_operation(_name, f"ftd.models.operations:{_name}")
