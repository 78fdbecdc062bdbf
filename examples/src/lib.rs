//! Small runnable programs for embedders; see the `examples` folder.
