//! Arguments that say what work leaves in the page cache.

use clap::{Args, ValueEnum};

/// Effect on the page cache.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct CacheArgs {
    /// Keep data in the page cache, or drop it after use: keep or drop
    ///
    /// With drop, a large image does not push other files out of the page cache. Data that was cached before stays.
    #[arg(long, value_enum, default_value_t = CacheChoice::Keep, value_name = "keep|drop", hide_possible_values = true)]
    pub(crate) cache: CacheChoice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CacheChoice {
    Keep,
    Drop,
}
