//! Numbers of block states (MS-VHDX 2.5.1.1), from the format and not from the library.

use vhdx_mmap::PayloadBlockState;

/// Number of a state in the file.
pub fn number_of(state: PayloadBlockState) -> u8 {
    match state {
        PayloadBlockState::NotPresent => 0,
        PayloadBlockState::Undefined => 1,
        PayloadBlockState::Zero => 2,
        PayloadBlockState::Unmapped => 3,
        PayloadBlockState::FullyPresent => 6,
        PayloadBlockState::PartiallyPresent => 7,
    }
}
