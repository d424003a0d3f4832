//! How enumerations of this crate are serialized: as the words that the command prints.

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::disk::FoundBy;
use crate::error::{Rule, Severity};
use crate::format::PayloadBlockState;
use crate::image::{ImageKind, Linkage};
#[cfg(feature = "ops")]
use crate::ops::inventory::{ForestLeaf, Health, ParentStatus};
#[cfg(feature = "ops")]
use crate::ops::{PartitionScheme, Volume};

/// Serializes an enumeration as the text of its `as_str`.
macro_rules! words {
    ($($of:ident { $($variant:ident),+ $(,)? })+) => {
        $(
            impl Serialize for $of {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.serialize_str(self.as_str())
                }
            }

            impl<'de> Deserialize<'de> for $of {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    const WORDS: &[&str] = &[$($of::$variant.as_str()),+];
                    let found = String::deserialize(deserializer)?;
                    let word = [$($of::$variant),+].into_iter().find(|word| word.as_str() == found);
                    word.ok_or_else(|| D::Error::unknown_variant(&found, WORDS))
                }
            }

            // A variant that is missing above does not compile.
            const _: fn($of) = |word| match word {
                $($of::$variant)|+ => {}
            };

            #[cfg(feature = "schema")]
            impl schemars::JsonSchema for $of {
                fn schema_name() -> std::borrow::Cow<'static, str> {
                    stringify!($of).into()
                }

                fn inline_schema() -> bool {
                    true
                }

                fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                    schemars::json_schema!({ "type": "string", "enum": [$($of::$variant.as_str()),+] })
                }
            }
        )+
    };
}

words! {
    FoundBy { Given, RelativePath, FileName, Root, Identity, Caller }
    ImageKind { Fixed, Dynamic, Differencing }
    Linkage { ParentLinkage, ParentLinkage2, Unverified }
    PayloadBlockState { NotPresent, Undefined, Zero, Unmapped, FullyPresent, PartiallyPresent }
    Severity { Note, Warning, Leak, Unchecked, Unsupported, Corruption }
}

#[cfg(feature = "ops")]
words! {
    ForestLeaf { Current, Newest, Branch }
    Health { Ok, Warnings, Incomplete, Unsupported, Damaged }
    ParentStatus { None, Found, Renamed, NotSearched, Missing, Changed, Unusable }
    PartitionScheme { Mbr, Gpt }
    Volume {
        Ext2, Ext3, Ext4, ExtJournal, Xfs, Btrfs, F2fs, Bcachefs, Bcache, Erofs, Squashfs, Jfs, ReiserFs, Zfs, Ufs,
        Nilfs2, Apfs, Hfs, HfsPlus, Hfsx, Ntfs, Refs, Fat, Fat32, ExFat, Iso9660, Udf, MdRaid, Lvm, AndroidSuper, Vmfs,
        Swap, BitLocker, Luks,
    }
}

impl Serialize for Rule {
    /// Writes the code of the rule.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = String::deserialize(deserializer)?;
        let rule = Self::ALL.iter().find(|rule| rule.code() == found).copied();
        rule.ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&found), &"the code of a rule"))
    }
}

/// The text of a rule's code: new versions know more rules.
#[cfg(feature = "schema")]
impl schemars::JsonSchema for Rule {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Rule".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[A-Z][0-9]+$" })
    }
}
