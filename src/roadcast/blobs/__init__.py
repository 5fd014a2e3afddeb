"""One store of bytes under names, wherever it lies. Models and archives are kept in it."""
