"""Images: sources, the decoded cache, batches, and augmentation on the device."""
