//! Signatures of HTTP calls.
