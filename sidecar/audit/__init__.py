"""One provable record per call: encoding, hash chain, checkpoints, writer, verification."""
