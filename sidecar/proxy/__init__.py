"""The data plane: from decrypted bytes to the upstream and back."""
