"""The people of an erasure: what they keep of erased twins, and what is removed of an erased account elsewhere."""
