//! Lists of digests, as sha256sum, other programs and this one write them.

use std::io::{self, BufRead, Read};

use vhdx_mmap::ops::{Algorithm, Digest};
pub(crate) use vhdx_mmap::report::VerifySumOf as SumOf;

/// Digest and name from a line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) digest: Digest,
    pub(crate) name: String,
    pub(crate) of: SumOf,
    /// Whether the algorithm is only known from the length of the digest: SHA-256 and BLAKE3 have the same.
    pub(crate) may_be_blake3: bool,
}

impl Sum {
    /// The same digest and name, with BLAKE3 as algorithm.
    pub(crate) fn as_blake3(&self) -> Self {
        let digest = Digest::from_hex(Algorithm::Blake3, &self.digest.to_string()).unwrap_or(self.digest);
        Self { digest, may_be_blake3: false, ..self.clone() }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) sums: Vec<Sum>,
    /// Number of the first line that cannot be parsed, from 1.
    pub(crate) first_bad_line: Option<u64>,
}

/// Length of the longest line, in bytes.
const LONGEST_LINE: u64 = 1 << 16;

/// Parses a list. Empty lines and lines that begin with `#` are skipped.
pub(crate) fn parse(mut input: impl BufRead, default: Option<Algorithm>) -> io::Result<Sums> {
    let mut sums = Sums::default();
    for number in 1_u64.. {
        let mut bytes = Vec::new();
        if input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches(['\n', '\r']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_line(line, default) {
            Some(sum) => sums.sums.push(sum),
            None => drop(sums.first_bad_line.get_or_insert(number)),
        }
    }
    Ok(sums)
}

fn parse_line(line: &str, default: Option<Algorithm>) -> Option<Sum> {
    // A backslash at the beginning says that the name contains escapes.
    let (line, is_escaped) = match line.strip_prefix('\\') {
        Some(rest) => (rest, true),
        None => (line, false),
    };
    let tagged = tagged(line);
    let is_tagged = tagged.is_some();
    let (digest, of, name) = tagged.or_else(|| plain(line, default))?;
    let name = if is_escaped { unescape(name)? } else { name.to_owned() };
    let may_be_blake3 = !is_tagged && default.is_none() && digest.algorithm() == Algorithm::Sha256;
    Some(Sum { digest, name, of, may_be_blake3 })
}

/// Parses `SHA256 (name) = digest`, where `disk` or `file` may follow the algorithm.
fn tagged(line: &str) -> Option<(Digest, SumOf, &str)> {
    let (head, digest) = line.rsplit_once(") = ")?;
    let (words, name) = head.split_once(" (")?;
    let (algorithm, of) = match words.split_once(' ') {
        None => (words, SumOf::Disk),
        Some((algorithm, "disk")) => (algorithm, SumOf::Disk),
        Some((algorithm, "file")) => (algorithm, SumOf::File),
        Some(_) => return None,
    };
    Some((Digest::from_hex(algorithm.parse().ok()?, digest)?, of, name))
}

/// Parses `digest  name` or `digest *name`. The algorithm is `default`, or follows from the length of the digest.
fn plain(line: &str, default: Option<Algorithm>) -> Option<(Digest, SumOf, &str)> {
    let (digest, name) = line.split_once(' ')?;
    let name = name.strip_prefix([' ', '*'])?;
    let by_length = |algorithm: &Algorithm| {
        *algorithm != Algorithm::Blake3 && algorithm.digest_len().checked_mul(2) == Some(digest.len())
    };
    let algorithm = default.or_else(|| Algorithm::ALL.iter().copied().find(by_length))?;
    Some((Digest::from_hex(algorithm, digest)?, SumOf::Disk, name))
}

fn unescape(name: &str) -> Option<String> {
    let (mut plain, mut characters) = (String::with_capacity(name.len()), name.chars());
    while let Some(c) = characters.next() {
        plain.push(match c {
            '\\' => match characters.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            c => c,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::{SumOf, parse};
    use vhdx_mmap::ops::Algorithm;

    #[test]
    fn parse_accepts_all_line_formats() {
        let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let list = format!(
            "# a list\n\n{sha256}  a.vhdx\n{sha256} *b (1) = x.vhdx\nSHA256 (c) = {sha256}\nCRC32 file (d) = 00000000\n\
             \\{sha256}  e\\nf\\\\g\nd41d8cd98f00b204e9800998ecf8427e  h\r\nBLAKE3 disk (i (j)) = {sha256}\nsha256 k\n"
        );
        let sums = parse(list.as_bytes(), None).unwrap();
        let found: Vec<_> = sums.sums.iter().map(|sum| (sum.name.as_str(), sum.digest.algorithm(), sum.of)).collect();
        assert_eq!(
            found,
            [
                ("a.vhdx", Algorithm::Sha256, SumOf::Disk),
                ("b (1) = x.vhdx", Algorithm::Sha256, SumOf::Disk),
                ("c", Algorithm::Sha256, SumOf::Disk),
                ("d", Algorithm::Crc32, SumOf::File),
                ("e\nf\\g", Algorithm::Sha256, SumOf::Disk),
                ("h", Algorithm::Md5, SumOf::Disk),
                ("i (j)", Algorithm::Blake3, SumOf::Disk),
            ]
        );
        assert_eq!(sums.first_bad_line, Some(10));
        let as_blake3 = parse(format!("{sha256}  a\n").as_bytes(), Some(Algorithm::Blake3)).unwrap();
        assert_eq!(as_blake3.sums[0].digest.algorithm(), Algorithm::Blake3);
    }
}
