//! The work on a disk, divided into splits: `vhdx plan`.

use serde::{Deserialize, Serialize};

use crate::ops::plan;

use super::{Report, Schema};

/// A plan of the work on a disk.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Plan {
    /// Name of this format.
    pub schema: Schema<Self>,
    /// The plan.
    #[serde(flatten)]
    pub plan: plan::Plan,
}

impl Report for Plan {
    const SCHEMA: &'static str = "vhdx-mmap/plan/1";
}

impl From<plan::Plan> for Plan {
    fn from(plan: plan::Plan) -> Self {
        Self { schema: Schema::default(), plan }
    }
}

/// One split of a plan, which can be used without the plan.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Split {
    /// Name of this format.
    pub schema: Schema<Self>,
    /// The split.
    #[serde(flatten)]
    pub split: plan::Split,
}

impl Report for Split {
    const SCHEMA: &'static str = "vhdx-mmap/split/1";
}

impl From<plan::Split> for Split {
    fn from(split: plan::Split) -> Self {
        Self { schema: Schema::default(), split }
    }
}
