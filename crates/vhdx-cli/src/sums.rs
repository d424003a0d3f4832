//! Lists of digests, as sha256sum, other programs and this one write them.

use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use vhdx_mmap::ops::{Algorithm, Digest};
pub(crate) use vhdx_mmap::report::VerifySumOf as SumOf;
use vhdx_mmap::report::path_of_bytes;

use crate::exit::Failure;
use crate::term;

/// Line of a list.
pub(crate) struct SumLine<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) name: &'a Path,
    pub(crate) form: Form<'a>,
}

/// Form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form<'a> {
    /// `DIGEST  NAME`, as sha256sum writes it.
    Plain,
    /// `SHA256 (NAME) = DIGEST`, as `sha256sum --tag` writes it.
    Bsd,
    /// `SHA256 (NAME, TAG) = DIGEST`: a digest of something in the file, which no other program takes for one of the
    /// file. The tag is `disk`, or `disk OFFSET:LENGTH`.
    Tagged(&'a str),
}

impl Form<'_> {
    /// Form of digests of a file: plain, with the algorithm if there are several.
    pub(crate) fn of_file(name: &Path, digests: usize) -> Self {
        let is_like_tagged = untag(name.as_os_str().as_encoded_bytes()).is_some();
        if digests > 1 && !is_like_tagged { Self::Bsd } else { Self::Plain }
    }
}

impl SumLine<'_> {
    /// Prints the line on standard output.
    pub(crate) fn print(&self) -> Result<(), Failure> {
        Ok(term::print_names(&self.to_bytes())?)
    }

    /// The line, with its end.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (label, digest) = (self.digest.algorithm().as_str().to_uppercase(), self.digest.to_string());
        match self.form {
            Form::Plain => line(&format!("{digest}  "), self.name, ""),
            Form::Bsd => line(&format!("{label} ("), self.name, &format!(") = {digest}")),
            Form::Tagged(tag) => line(&format!("{label} ("), self.name, &format!(", {tag}) = {digest}")),
        }
    }
}

/// A line with a name. A name that would break the line is escaped, and the line begins with a backslash, like those of
/// sha256sum. Other names are unchanged.
pub(crate) fn line(before: &str, name: &Path, after: &str) -> Vec<u8> {
    let name = name.as_os_str().as_encoded_bytes();
    let mut escaped = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'\\' => escaped.extend(b"\\\\"),
            b'\n' => escaped.extend(b"\\n"),
            b'\r' => escaped.extend(b"\\r"),
            byte => escaped.push(*byte),
        }
    }
    let start = if escaped.len() > name.len() { "\\" } else { "" };
    [start.as_bytes(), before.as_bytes(), &escaped, after.as_bytes(), b"\n"].concat()
}

/// Prints a line with a name on standard output.
pub(crate) fn print_line(before: &str, name: &Path, after: &str) -> Result<(), Failure> {
    Ok(term::print_names(&line(before, name, after))?)
}

/// Digest and name from a line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) digest: Digest,
    pub(crate) name: PathBuf,
    /// `None` if the line does not say what the digest is of.
    pub(crate) of: Option<SumOf>,
    /// The part of the disk, if the digest is not of all of it.
    pub(crate) range: Option<Range<u64>>,
    /// Whether the algorithm is only known from the length of the digest: SHA-256 and BLAKE3 have the same.
    pub(crate) may_be_blake3: bool,
}

impl Sum {
    /// The digest, as one of BLAKE3.
    pub(crate) fn as_blake3(&self) -> Digest {
        Digest::from_hex(Algorithm::Blake3, &self.digest.to_string()).unwrap_or(self.digest)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) sums: Vec<Sum>,
    /// Numbers of the lines that cannot be parsed, from 1.
    pub(crate) bad_lines: Vec<u64>,
}

/// Length of the longest line, in bytes.
const LONGEST_LINE: u64 = 1 << 16;

/// Encoding of a list, by its byte order mark: some shells write what they redirect in UTF-16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Bytes,
    Utf16Le,
    Utf16Be,
}

/// Reads a line without more than `LONGEST_LINE` bytes, as UTF-8 if the list has another encoding.
fn read_line(input: &mut impl BufRead, encoding: Encoding, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    if encoding == Encoding::Bytes {
        return input.take(LONGEST_LINE).read_until(b'\n', line);
    }
    let mut units = Vec::new();
    let mut pair = [0; 2];
    while u64::try_from(units.len()).is_ok_and(|length| length < LONGEST_LINE)
        && units.last() != Some(&u16::from(b'\n'))
    {
        match input.read_exact(&mut pair) {
            Ok(()) if encoding == Encoding::Utf16Le => units.push(u16::from_le_bytes(pair)),
            Ok(()) => units.push(u16::from_le_bytes(pair).swap_bytes()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    line.extend(String::from_utf16_lossy(&units).into_bytes());
    Ok(line.len())
}

/// Takes the byte order mark.
fn encoding(input: &mut impl BufRead) -> io::Result<(Encoding, Vec<u8>)> {
    let mut start = Vec::new();
    input.take(2).read_to_end(&mut start)?;
    Ok(match start.as_slice() {
        [0xff, 0xfe] => (Encoding::Utf16Le, Vec::new()),
        [0xfe, 0xff] => (Encoding::Utf16Be, Vec::new()),
        _ => (Encoding::Bytes, start),
    })
}

/// Parses a list. Empty lines and lines that begin with `#` are skipped, and so is a byte order mark.
pub(crate) fn parse(mut input: impl BufRead, default: Option<Algorithm>) -> io::Result<Sums> {
    let mut sums = Sums::default();
    let (encoding, start) = encoding(&mut input)?;
    let mut input = start.chain(input);
    let mut buffer = Vec::new();
    for number in 1_u64.. {
        if read_line(&mut input, encoding, &mut buffer)? == 0 {
            break;
        }
        let line = buffer.strip_prefix(b"\xef\xbb\xbf").filter(|_| number == 1).unwrap_or(&buffer);
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        match parse_line(line, default) {
            Some(sum) => sums.sums.push(sum),
            None => sums.bad_lines.push(number),
        }
    }
    Ok(sums)
}

fn parse_line(line: &[u8], default: Option<Algorithm>) -> Option<Sum> {
    // A backslash at the beginning says that the name contains escapes.
    let (line, is_escaped) = match line.strip_prefix(b"\\") {
        Some(rest) => (rest, true),
        None => (line, false),
    };
    let tagged = tagged(line);
    let is_tagged = tagged.is_some();
    let (digest, of, range, name) = tagged.or_else(|| plain(line, default))?;
    let name = path_of_bytes(if is_escaped { unescape(name)? } else { name.to_vec() });
    let may_be_blake3 = !is_tagged && default.is_none() && digest.algorithm() == Algorithm::Sha256;
    Some(Sum { digest, name, of, range, may_be_blake3 })
}

/// Digest, what it is of, and name.
type Parsed<'l> = (Digest, Option<SumOf>, Option<Range<u64>>, &'l [u8]);

/// Parses `SHA256 (name) = digest`, `SHA256 (name, disk) = digest` and `SHA256 (name, disk offset:length) = digest`.
fn tagged(line: &[u8]) -> Option<Parsed<'_>> {
    let (head, digest) = split_at_last(line, b") = ")?;
    let (algorithm, name) = split_at_first(head, b" (")?;
    let digest = Digest::from_hex(text(algorithm)?.parse().ok()?, text(digest)?)?;
    Some(match untag(name) {
        None => (digest, None, None, name),
        Some((name, range)) => (digest, Some(SumOf::Disk), range, name),
    })
}

/// Name of a name that ends with a tag, and the range in the tag.
fn untag(name: &[u8]) -> Option<(&[u8], Option<Range<u64>>)> {
    let (name, tag) = split_at_last(name, b", disk")?;
    if tag.is_empty() {
        return Some((name, None));
    }
    let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?;
    let (offset, length) = text(tag)?.strip_prefix(' ')?.split_once(':')?;
    let start: u64 = number(offset)?;
    Some((name, Some(start..start.checked_add(number(length)?)?)))
}

/// Parses `digest  name` or `digest *name`. The algorithm is `default`, or follows from the length of the digest.
fn plain(line: &[u8], default: Option<Algorithm>) -> Option<Parsed<'_>> {
    let (digest, name) = split_at_first(line, b" ")?;
    let name = name.strip_prefix(b" ").or_else(|| name.strip_prefix(b"*"))?;
    let digest = text(digest)?;
    let by_length = |algorithm: &Algorithm| {
        *algorithm != Algorithm::Blake3 && algorithm.digest_len().checked_mul(2) == Some(digest.len())
    };
    let algorithm = default.or_else(|| Algorithm::ALL.iter().copied().find(by_length))?;
    Some((Digest::from_hex(algorithm, digest)?, None, None, name))
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn split_at_first<'a>(line: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    split_at(line, line.windows(mark.len()).position(|window| window == mark)?, mark)
}

fn split_at_last<'a>(line: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    split_at(line, line.windows(mark.len()).rposition(|window| window == mark)?, mark)
}

fn split_at<'a>(line: &'a [u8], at: usize, mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (head, rest) = line.split_at_checked(at)?;
    Some((head, rest.strip_prefix(mark)?))
}

fn unescape(name: &[u8]) -> Option<Vec<u8>> {
    let (mut plain, mut bytes) = (Vec::with_capacity(name.len()), name.iter());
    while let Some(&byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                b'r' => b'\r',
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Form, SumLine, SumOf, parse};
    use vhdx_mmap::ops::{Algorithm, Digest};

    const SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parse_accepts_all_line_formats() {
        let list = format!(
            "# a list\n\n{SHA256}  a.vhdx\n{SHA256} *b (1) = x.vhdx\nSHA256 (c) = {SHA256}\n\
             CRC32 (d, disk) = 00000000\n\\{SHA256}  e\\nf\\\\g\nd41d8cd98f00b204e9800998ecf8427e  h\r\n\
             BLAKE3 (i (j), disk) = {SHA256}\nsha256 k\n\
             SHA256 (l, disk 0:512) = {SHA256}\n\\SHA256 (m\\n, disk) = {SHA256}\nSHA256 (n, disk 9) = {SHA256}\n"
        );
        let sums = parse(list.as_bytes(), None).unwrap();
        let found: Vec<_> =
            sums.sums.iter().map(|sum| (sum.name.to_str().unwrap(), sum.digest.algorithm(), sum.of)).collect();
        assert_eq!(
            found,
            [
                ("a.vhdx", Algorithm::Sha256, None),
                ("b (1) = x.vhdx", Algorithm::Sha256, None),
                ("c", Algorithm::Sha256, None),
                ("d", Algorithm::Crc32, Some(SumOf::Disk)),
                ("e\nf\\g", Algorithm::Sha256, None),
                ("h", Algorithm::Md5, None),
                ("i (j)", Algorithm::Blake3, Some(SumOf::Disk)),
                ("l", Algorithm::Sha256, Some(SumOf::Disk)),
                ("m\n", Algorithm::Sha256, Some(SumOf::Disk)),
                ("n, disk 9", Algorithm::Sha256, None),
            ]
        );
        assert_eq!(sums.bad_lines, [10]);
        let ranges: Vec<_> = sums.sums.iter().filter_map(|sum| sum.range.clone()).collect();
        assert_eq!((ranges.len(), ranges.first()), (1, Some(&(0..512))));
        // What some shells write: with a byte order mark, and in UTF-16.
        let utf16 =
            |bytes_of: fn(u16) -> [u8; 2]| format!("\u{feff}{list}").encode_utf16().flat_map(bytes_of).collect();
        let encoded: [Vec<u8>; 3] = [
            format!("\u{feff}{list}").into_bytes(),
            utf16(u16::to_le_bytes),
            utf16(|unit| unit.swap_bytes().to_le_bytes()),
        ];
        for bytes in encoded {
            let other = parse(bytes.as_slice(), None).unwrap();
            assert_eq!((other.sums, other.bad_lines), (sums.sums.clone(), sums.bad_lines.clone()));
        }
        let as_blake3 = parse(format!("{SHA256}  a\n").as_bytes(), Some(Algorithm::Blake3)).unwrap();
        assert_eq!(as_blake3.sums[0].digest.algorithm(), Algorithm::Blake3);
    }

    #[test]
    fn a_line_is_parsed_as_it_was_written() {
        let digest = Digest::from_hex(Algorithm::Sha256, SHA256).unwrap();
        for name in
            ["a", "a b", "a\nb", "a\\nb", "a\r", "a) = b", "a, disk", "a, disk 0:9", "a, disk) = ", "\\a", "*a", " a"]
        {
            let name = Path::new(name);
            let of_file = [1, 2].map(|digests| (Form::of_file(name, digests), None));
            for (form, of) in
                [(Form::Plain, None), (Form::Tagged("disk"), Some(SumOf::Disk))].into_iter().chain(of_file)
            {
                let line = SumLine { digest: &digest, name, form }.to_bytes();
                let sums = parse(line.as_slice(), None).unwrap();
                let [sum] = sums.sums.as_slice() else { panic!("{name:?} {form:?}: {sums:?}") };
                assert_eq!((sum.name.as_path(), sum.of, sum.digest), (name, of, digest), "{form:?}");
            }
        }
    }
}
