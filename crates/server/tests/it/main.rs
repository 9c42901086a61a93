//! terse through its front doors: HTTP, the command line, and the file system under it.

mod support;

mod backup;
mod cli;
mod crash;
mod disk;
mod generators;
mod import_export;
mod shutdown;
mod smoke;
