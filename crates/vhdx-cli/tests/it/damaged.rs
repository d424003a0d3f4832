//! Checking and salvaging by the command: what it tells of damaged images, and what it gets out of them.
#![cfg(unix)]

mod claims;
mod command;
mod loss_map;
mod salvage;
mod salvage_chain;
mod shared;
mod table;

use vhdx_testkit::cuts;
