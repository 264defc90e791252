"""Memory as the kernel and the C library hand it out."""
