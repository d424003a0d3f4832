//! Checking and salvaging by the command: what it reports on damaged images, and what it recovers from them.
#![cfg(unix)]

mod claims;
mod command;
mod loss_map;
mod salvage;
mod salvage_chain;
mod shared;
mod table;

use vhdx_testkit::cuts;
