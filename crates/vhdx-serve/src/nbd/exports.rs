//! The exports of a server.

use crate::Export;

/// The exports of a server.
#[derive(Clone, Debug, Default)]
pub struct Exports {
    list: Vec<Export>,
    has_default: bool,
}

impl Exports {
    /// Makes a list of exports. With `has_default`, a client that gives no name gets the first one.
    #[must_use]
    pub fn new(list: Vec<Export>, has_default: bool) -> Self {
        Self { list, has_default }
    }

    /// Returns the exports in order.
    pub fn iter(&self) -> impl Iterator<Item = &Export> {
        self.list.iter()
    }

    /// Returns whether a client that gives no name gets the first export.
    #[must_use]
    pub fn has_default(&self) -> bool {
        self.has_default
    }

    /// Returns the export of a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Export> {
        let named = self.list.iter().find(|export| export.name() == name);
        named.or_else(|| self.list.first().filter(|_| self.has_default && name.is_empty()))
    }
}
