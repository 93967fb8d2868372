"""Images and what is known of them: records, readers, the image store, augmentation, sampling."""
