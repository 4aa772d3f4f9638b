"""The journal: a copy of every no in the other store, so that it survives the loss of this one. It serves nothing."""
