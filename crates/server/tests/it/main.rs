//! terse through its front doors: HTTP, the command line, and the file system under it.

mod support;

mod smoke;
