//! exFAT.
