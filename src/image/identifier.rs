//! File type identifier (MS-VHDX 2.2.1).

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::{FileIdentifier, MIB};
use crate::source::View;

use super::other_format;
use super::warning::Warnings;
use crate::error::Rule;

/// Checks that the file begins with the signature of a VHDX file.
///
/// # Errors
/// [`ErrorKind::NotVhdx`] if it does not, [`ErrorKind::Lost`] if it cannot be read.
pub(crate) fn check_signature(view: &View) -> Result<()> {
    match view.copy(Structure::FileIdentifier, 0, 8) {
        Ok(bytes) if bytes == FileIdentifier::SIGNATURE.as_bytes() => return Ok(()),
        Err(error) if is_lost(&error) => return Err(error),
        _ => {}
    }
    let looks_like = other_format::detect(view);
    // The guess may be based on zeros that replace lost bytes.
    view.check(Structure::File, 0, MIB)?;
    Err(Error::at(Structure::FileIdentifier, 0, ErrorKind::NotVhdx { looks_like }))
}

fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Lost)
}

/// Checks the identifier, and that the file is longer than the header section. Returns the creator, as text.
///
/// # Errors
/// [`ErrorKind::NotVhdx`] if the signature is missing, [`ErrorKind::FileTooShort`] if the file ends in the header
/// section.
pub(crate) fn read(view: &View, warnings: &mut Warnings) -> Result<String> {
    let signature = check_signature(view);
    let is_lost = signature.as_ref().is_err_and(is_lost);
    warnings.require(Rule::Signature, signature)?;
    if view.length() < MIB {
        let kind = ErrorKind::FileTooShort { found: view.length(), expected: MIB };
        warnings.reject(Rule::FileLength, Error::of(Structure::File, kind))?;
    }
    if is_lost {
        return Ok(String::new());
    }
    let identifier = view.fetch::<FileIdentifier>(Structure::FileIdentifier, 0);
    let Some(identifier) = warnings.accept(Rule::FileLength, identifier)? else { return Ok(String::new()) };
    let units = identifier.creator.iter().map(|unit| unit.get()).take_while(|unit| *unit != 0);
    let mut lossy = false;
    let creator = char::decode_utf16(units)
        .map(|decoded| {
            lossy |= decoded.is_err();
            decoded.unwrap_or(char::REPLACEMENT_CHARACTER)
        })
        .collect();
    if lossy {
        let kind = ErrorKind::Text { what: "Creator is not UTF-16" };
        warnings.add(Rule::Creator, Error::at(Structure::FileIdentifier, 8, kind));
    }
    Ok(creator)
}
