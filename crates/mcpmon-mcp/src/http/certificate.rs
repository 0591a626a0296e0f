//! When a certificate ends, read from its bytes.
//!
//! The TLS library has verified the certificate and tells nobody its dates. They are the fifth
//! field of its first part, so the few lines that walk there are less to trust than an X.509
//! library with its tree. Nothing is decided by what they find but a finding.

use mcpmon_core::time::Timestamp;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity (RFC 5280, 4.1.2.5); `None` where the bytes are no
/// certificate.
pub(super) fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = tagged(der, SEQUENCE)?;
    let (mut fields, _) = tagged(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (validity, _) = tagged(fields, SEQUENCE)?;
    let (_, _, after_begin) = element(validity)?;
    let (tag, end, _) = element(after_begin)?;
    time(tag, end)
}

/// Tag, content and what follows of the first element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The length of the length: no certificate is longer than four bytes can say.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn tagged(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(der)?;
    (tag == wanted).then_some((content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, as certificates must write it.
fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let full = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let century = if &text[..2] < "50" { "20" } else { "19" };
            format!("{century}{text}")
        }
        (GENERALIZED_TIME, 14) => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize| &full[from..from + 2];
    let (year, month, day) = (&full[..4], part(4), part(6));
    format!("{year}-{month}-{day}T{}:{}:{}Z", part(8), part(10), part(12)).parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    fn end_of(pem: &[u8]) -> Option<String> {
        let der = CertificateDer::from_pem_slice(pem).unwrap();
        not_after(&der).map(|at| at.to_string())
    }

    #[test]
    fn the_end_is_the_one_openssl_reads() {
        let good = end_of(include_bytes!("../../tests/client/certs/good.pem"));
        let expired = end_of(include_bytes!("../../tests/client/certs/expired.pem"));
        assert_eq!(good.as_deref(), Some("2120-01-01T00:00:00.000Z"));
        assert_eq!(expired.as_deref(), Some("2021-01-01T00:00:00.000Z"));
    }

    #[test]
    fn both_spellings_of_a_time_are_read() {
        let read = |tag, text: &str| time(tag, text.as_bytes()).map(|at| at.to_string());
        let expected = Some("2049-12-31T23:59:59.000Z".to_owned());
        assert_eq!(read(UTC_TIME, "491231235959Z"), expected);
        assert_eq!(read(GENERALIZED_TIME, "20491231235959Z"), expected);
        assert_eq!(read(UTC_TIME, "500101000000Z").as_deref(), Some("1950-01-01T00:00:00.000Z"));
        for (tag, text) in [(UTC_TIME, "4912312359Z"), (UTC_TIME, "20491231235959Z"), (2, "x")] {
            assert_eq!(read(tag, text), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_lead_it_astray(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = not_after(&bytes);
        }

        #[test]
        fn a_cut_certificate_is_none(keep in 0_usize..300) {
            let pem = include_bytes!("../../tests/client/certs/good.pem");
            let der = CertificateDer::from_pem_slice(pem).unwrap();
            prop_assert_eq!(not_after(&der[..keep]), None);
        }
    }
}
