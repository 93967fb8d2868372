"""The network: a backbone from timm, pooling, a BatchNorm neck, unit features."""
