"""From specs to machine code to a bundle: compiler, linker, cross-compiling, the cache of kernels."""
