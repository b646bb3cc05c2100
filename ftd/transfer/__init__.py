"""Ground truths: what one task's weights, or its best architectures, are worth on another."""
