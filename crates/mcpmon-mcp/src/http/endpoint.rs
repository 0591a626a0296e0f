//! An MCP endpoint: where it is, what every request to it carries, and which redirects are its own.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use mcpmon_core::failure::{FailureCode, Phase};
use mcpmon_core::service::HttpSpec;

use crate::error::CallError;

/// Scheme, host and port: what a connection is to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// `https`.
    pub secure: bool,
    /// A name or an address, without brackets, in lower case.
    pub host: String,
    /// The port, the scheme's own if none was given.
    pub port: u16,
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let secure = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Some(Self { secure, host, port })
    }

    /// What the header `Host` says.
    fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.secure, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// Where requests go and what they all carry.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Scheme, host and port.
    pub origin: Origin,
    /// Path and query, as the request line has it.
    pub target: Uri,
    /// Headers of every request.
    pub headers: HeaderMap,
}

impl Endpoint {
    /// Reads a service's entry.
    ///
    /// # Errors
    ///
    /// `configuration_invalid` for what is no `http(s)` URL, or a header no request can carry. The
    /// message names the header, never its value.
    pub fn parse(spec: &HttpSpec) -> Result<Self, CallError> {
        let invalid = |message: String| {
            CallError::new(FailureCode::ConfigurationInvalid, Phase::Prepare, message)
        };
        let uri: Uri = spec
            .url
            .parse()
            .map_err(|error| invalid(format!("`{}` is not a URL: {error}", spec.url)))?;
        let origin = Origin::of(&uri)
            .ok_or_else(|| invalid(format!("`{}` is not an http or https URL", spec.url)))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            let message = "`url` holds a user name or password; put them in `headers`";
            return Err(invalid(message.to_owned()));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &spec.headers {
            let parsed = HeaderName::try_from(name.as_str())
                .map_err(|_| invalid(format!("`{name}` is not a header name")))?;
            let mut value = HeaderValue::try_from(value.expose())
                .map_err(|_| invalid(format!("the value of header `{name}` cannot be sent")))?;
            value.set_sensitive(true);
            headers.insert(parsed, value);
        }
        let host = HeaderValue::try_from(origin.authority())
            .map_err(|_| invalid(format!("`{}` has no usable host", spec.url)))?;
        headers.entry(HOST).or_insert(host);
        let target = origin_form(&uri);
        Ok(Self { origin, target, headers })
    }

    /// Where a redirect leads, if it may be followed: the same origin only, since credentials are
    /// sent along.
    ///
    /// # Errors
    ///
    /// Why it may not.
    pub fn redirected(&self, location: &str) -> Result<Uri, &'static str> {
        let absolute = if location.starts_with("//") {
            let scheme = if self.origin.secure { "https:" } else { "http:" };
            format!("{scheme}{location}")
        } else if location.contains("://") {
            location.to_owned()
        } else if location.starts_with('/') {
            return location.parse().map_err(|_| "its target is not a URL");
        } else {
            let path = self.target.path();
            let folder = &path[..=path.rfind('/').unwrap_or(0)];
            return format!("{folder}{location}").parse().map_err(|_| "its target is not a URL");
        };
        let uri: Uri = absolute.parse().map_err(|_| "its target is not a URL")?;
        match Origin::of(&uri) {
            None => Err("it leads to another scheme"),
            Some(origin) if origin == self.origin => Ok(origin_form(&uri)),
            Some(origin) if origin.secure != self.origin.secure => {
                Err("it leads to another scheme")
            }
            Some(_) => Err("it leads to another origin"),
        }
    }
}

fn origin_form(uri: &Uri) -> Uri {
    uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()))
}

/// Whether an address is link-local. Cloud machines keep their credentials behind one, and no MCP
/// server is reached by it.
pub fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mcpmon_core::secret::Secret;

    use super::*;

    fn endpoint(url: &str) -> Result<Endpoint, CallError> {
        Endpoint::parse(&HttpSpec { url: url.to_owned(), headers: BTreeMap::new() })
    }

    #[test]
    fn urls_are_taken_apart() {
        for (url, origin, target, host) in [
            ("http://Example.com/mcp?x=1", "http://example.com", "/mcp?x=1", "example.com"),
            ("https://a.b:8443", "https://a.b:8443", "/", "a.b:8443"),
            ("http://[::1]:80/m", "http://[::1]", "/m", "[::1]"),
        ] {
            let endpoint = endpoint(url).unwrap();
            assert_eq!(endpoint.origin.to_string(), origin);
            assert_eq!(endpoint.target.to_string(), target);
            assert_eq!(endpoint.headers[HOST], host);
        }
        for bad in ["", "ftp://x/", "/mcp", "example.com", "http://u:p@h/", "http://a b/"] {
            let error = endpoint(bad).unwrap_err();
            assert_eq!(error.code(), FailureCode::ConfigurationInvalid, "{bad}");
        }
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_named_without_its_value() {
        let headers = BTreeMap::from([("X-Key".to_owned(), Secret::new("a\nb-secret"))]);
        let spec = HttpSpec { url: "http://h/".to_owned(), headers };
        let text = format!("{:?}", Endpoint::parse(&spec).unwrap_err());
        assert!(text.contains("X-Key") && !text.contains("b-secret"), "{text}");
    }

    #[test]
    fn only_redirects_to_the_same_origin_are_followed() {
        let endpoint = endpoint("http://h:8000/api/mcp").unwrap();
        for (location, target) in [
            ("/mcp/", "/mcp/"),
            ("http://h:8000/x", "/x"),
            ("http://H:8000/x?y", "/x?y"),
            ("//h:8000/z", "/z"),
            ("mcp/", "/api/mcp/"),
        ] {
            assert_eq!(endpoint.redirected(location).unwrap().to_string(), target);
        }
        for location in
            ["https://h:8000/x", "http://h/x", "http://evil/x", "//evil/", "javascript://x"]
        {
            assert!(endpoint.redirected(location).is_err(), "{location}");
        }
    }

    #[test]
    fn link_local_addresses_are_known_in_every_form() {
        for address in ["169.254.169.254", "fe80::1", "febf::1", "::ffff:169.254.1.1"] {
            assert!(is_link_local(address.parse().unwrap()), "{address}");
        }
        for address in ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "169.253.0.1"] {
            assert!(!is_link_local(address.parse().unwrap()), "{address}");
        }
    }
}
