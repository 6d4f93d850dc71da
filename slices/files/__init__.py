"""Files on disk: atomic output, temporary files, safetensors, child processes."""
