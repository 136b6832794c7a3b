"""Who computes and holds what where many processes train one network; PyTorch's own engine underneath."""
