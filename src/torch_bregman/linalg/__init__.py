"""Singular value thresholding on plain tensors; knows nothing of training."""

from torch_bregman.linalg.gram import svt_gram

__all__ = ["svt_gram"]
