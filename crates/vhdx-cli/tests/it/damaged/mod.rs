//! Checking and salvaging by the command: what it reports on damaged images, and what it recovers from them.
#![cfg(unix)]

mod claims;
mod command;
mod content;
mod hints;
mod loss_map;
mod lost_regions;
mod salvage;
mod salvage_chain;
mod shared;
mod table;

use vhdx_testkit::cuts;
