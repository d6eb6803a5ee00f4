"""The same lookup over three protocols in one control tunnel."""
