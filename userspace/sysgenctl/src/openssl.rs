// SPDX-License-Identifier: MIT OR Apache-2.0

//! What OpenSSL's own program says of this system, and of the provider `sysgenid`.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::Command;

/// The provider's name, and that of its module.
pub const PROVIDER: &str = "sysgenid";
/// The variable that names a configuration.
pub const CONFIGURATION: &str = "OPENSSL_CONF";
/// Others that change where OpenSSL looks.
const OTHERS: [&str; 2] = ["OPENSSL_MODULES", "OPENSSL_CONF_INCLUDE"];

/// What OpenSSL is installed.
#[derive(Debug, PartialEq, Eq)]
pub enum Installed {
    /// Its program cannot be found.
    NoProgram,
    /// One without providers, or none that answers. The text is what it is, or said.
    Unfit(String),
    /// One with providers.
    Fit(Place),
}

/// A version of OpenSSL, and where it looks for what.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    pub version: String,
    /// Where modules are.
    pub modules: PathBuf,
    /// The system's configuration.
    pub configuration: PathBuf,
}

/// What becomes of the provider under a configuration.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    /// All generators are the provider's, which says this of what it looks at.
    On(String),
    /// All are, but it looks at nothing, for this reason.
    Blind(String),
    /// The provider is loaded, and so many generators, of so many, are its.
    Unused(usize, usize),
    /// The provider is not loaded.
    Off,
    /// OpenSSL does not get that far. It says this.
    Broken(String),
}

impl Installed {
    /// Asks.
    pub fn find() -> Self {
        match ask(None, &["version", "-v", "-d", "-m"]) {
            Ok(text) => {
                Place::parse(&text).map_or_else(|| Self::Unfit(first_line(&text)), Self::Fit)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::NoProgram,
            // Without providers, it has no modules, and no option to ask where they are.
            Err(error) => match ask(None, &["version"]) {
                Ok(text) => Self::Unfit(first_line(&text)),
                Err(_) => Self::Unfit(error.to_string()),
            },
        }
    }
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let quoted = |key: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))?;
            Some(PathBuf::from(value.trim_matches('"')))
        };
        Some(Self {
            version: text.split(' ').nth(1)?.to_owned(),
            modules: quoted("MODULESDIR")?,
            configuration: quoted("OPENSSLDIR")?.join("openssl.cnf"),
        })
    }

    /// Where the provider is, if it is installed.
    pub fn provider(&self) -> PathBuf {
        self.modules.join(PROVIDER).with_extension("so")
    }
}

impl State {
    /// Asks what becomes of the provider under that configuration; the system's, if it is none.
    pub fn under(configuration: Option<&OsStr>) -> Self {
        let list = |what| ask(configuration, &["list", what]);
        match (list("-providers"), list("-random-instances")) {
            (Ok(providers), Ok(generators)) => Self::parse(&providers, &generators),
            (Err(error), _) | (_, Err(error)) => Self::Broken(error.to_string()),
        }
    }

    fn parse(providers: &str, generators: &str) -> Self {
        let Some((name, status)) = provider(providers) else {
            return Self::Off;
        };
        let of: Vec<_> = generators
            .lines()
            .filter_map(|line| line.split_once(" @ "))
            .map(|(_, provider)| provider.trim())
            .collect();
        let ours = of.iter().filter(|provider| **provider == PROVIDER).count();
        // The provider says in brackets what it does; after colons, why it does not, and what to do.
        let said = name
            .split_once(" (")
            .and_then(|(_, said)| said.strip_suffix(')'));
        let said = said.unwrap_or_default();
        if ours == 0 || ours < of.len() {
            Self::Unused(ours, of.len())
        } else if status == "active" {
            Self::On(said.to_owned())
        } else {
            let why = said.split(": ").nth(1).unwrap_or(said);
            Self::Blind(why.to_owned())
        }
    }
}

/// The name for people and the status of the provider, if it is in the list.
fn provider(providers: &str) -> Option<(&str, &str)> {
    let is_head = |line: &str| line.starts_with("  ") && !line.starts_with("   ");
    let mut lines = providers.lines();
    lines.find(|line| is_head(line) && line.trim() == PROVIDER)?;
    let its: Vec<_> = lines.take_while(|line| !is_head(line)).collect();
    let value = |key: &str| its.iter().find_map(|line| line.trim().strip_prefix(key));
    Some((value("name: ")?, value("status: ")?))
}

/// What the program prints, as it does in a shell in which no variable for OpenSSL is set, or just the
/// one that names this configuration.
fn ask(configuration: Option<&OsStr>, arguments: &[&str]) -> io::Result<String> {
    let mut command = Command::new("openssl");
    command.args(arguments).env_remove(CONFIGURATION);
    for variable in OTHERS {
        command.env_remove(variable);
    }
    if let Some(configuration) = configuration {
        command.env(CONFIGURATION, configuration);
    }
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "openssl {} fails ({}): {}",
        arguments.join(" "),
        output.status,
        first_line(&said)
    )))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or("it says nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = "\
Providers:
  default
    name: OpenSSL Default Provider
    version: 3.5.9
    status: active
";
    const GENERATORS: &str = "\
primary:
  CTR-DRBG @ sysgenid
  state = ready
public:
  CTR-DRBG @ sysgenid
  state = ready
private:
  CTR-DRBG @ sysgenid
  state = ready
";

    fn providers(said: &str, status: &str) -> String {
        format!(
            "{DEFAULT}  sysgenid\n    name: OpenSSL's CTR-DRBG, reseeded in clones ({said})\n    \
             version: 0.1.0\n    status: {status}\n  other\n    name: Other\n    status: other\n"
        )
    }

    #[test]
    fn openssl_says_where_it_looks() {
        let text = "\
OpenSSL 3.5.9 29 Sep 2026 (Library: OpenSSL 3.5.9 29 Sep 2026)
OPENSSLDIR: \"/usr/lib/ssl\"
MODULESDIR: \"/usr/lib/x86_64-linux-gnu/ossl-modules\"
";
        let place = Place::parse(text).expect("it is one with providers");
        assert_eq!(place.version, "3.5.9");
        assert_eq!(
            place.configuration,
            PathBuf::from("/usr/lib/ssl/openssl.cnf")
        );
        let provider = "/usr/lib/x86_64-linux-gnu/ossl-modules/sysgenid.so";
        assert_eq!(place.provider(), PathBuf::from(provider));
        assert_eq!(Place::parse("LibreSSL 4.0.0\n"), None);
    }

    #[test]
    fn it_is_on_if_all_generators_are_its() {
        let state = State::parse(&providers("on", "active"), GENERATORS);
        assert_eq!(state, State::On("on".into()));
        let one_less = GENERATORS.replacen("sysgenid", "default", 1);
        let state = State::parse(&providers("on", "active"), &one_less);
        assert_eq!(state, State::Unused(2, 3));
        let state = State::parse(&providers("on", "active"), "");
        assert_eq!(state, State::Unused(0, 0));
    }

    #[test]
    fn it_says_why_it_looks_at_nothing() {
        let state = State::parse(
            &providers("off: no (such) device: load it", "inactive"),
            GENERATORS,
        );
        assert_eq!(state, State::Blind("no (such) device".into()));
    }

    #[test]
    fn without_the_provider_it_is_off() {
        assert_eq!(State::parse(DEFAULT, GENERATORS), State::Off);
        let other = DEFAULT.replace("  default\n", "  sysgenid2\n");
        assert_eq!(State::parse(&other, GENERATORS), State::Off);
    }
}
