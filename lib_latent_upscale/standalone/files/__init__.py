"""Pictures and folders on the disk."""
