//! Layers of configuration: defaults, a file, options, `--set key=value`; later ones win.

use toml::{Table, Value};

use crate::failure::{Failure, Kind, Result};

/// Puts `over` on top of `base`: tables are joined, everything else is replaced.
///
/// A table with another `name` than the base's (another optimiser, another space) replaces the base's whole.
pub(crate) fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) if same_name(old, &new) => merge(old, new),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn same_name(old: &Table, new: &Table) -> bool {
    new.get("name").is_none_or(|name| old.get("name") == Some(name))
}

/// One `--set a.b=c` as a table; `c` is a TOML value, or a string where it is none.
///
/// # Errors
/// Exit code 2 if there is no `=` or the key is empty.
pub(crate) fn parse_set(text: &str) -> Result<Table> {
    let fail = || Failure::new(Kind::Usage, format!("--set {text}: expected key=value such as proxy.train.epochs=8"));
    let (path, value) = text.split_once('=').ok_or_else(fail)?;
    let parsed = toml::from_str::<Table>(&format!("v = {value}")).ok().and_then(|mut table| table.remove("v"));
    let mut value = parsed.unwrap_or_else(|| Value::String(value.trim().to_owned()));
    for key in path.split('.').rev() {
        if key.trim().is_empty() {
            return Err(fail());
        }
        value = Value::Table(Table::from_iter([(key.trim().to_owned(), value)]));
    }
    match value {
        Value::Table(table) => Ok(table),
        _ => Err(fail()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn later_layers_win() {
        let mut base = table("seed = 1\n[proxy]\nepochs = 2\nimages = 3");
        merge(&mut base, table("[proxy]\nepochs = 9"));
        merge(&mut base, parse_set("proxy.label = abc").unwrap());
        assert_eq!(base, table("seed = 1\n[proxy]\nepochs = 9\nimages = 3\nlabel = \"abc\""));
    }

    #[test]
    fn another_name_replaces_the_whole_table() {
        let mut base = table("[optimizer]\nname = \"sgd\"\nmomentum = 0.9");
        merge(&mut base, table("[optimizer]\nname = \"adamw\""));
        assert_eq!(base, table("[optimizer]\nname = \"adamw\""));
    }

    #[test]
    fn values_are_toml_or_strings() {
        assert_eq!(parse_set("a.b=[1, 2]").unwrap(), table("[a]\nb = [1, 2]"));
        assert_eq!(parse_set("a=0.5").unwrap(), table("a = 0.5"));
        assert_eq!(parse_set("path=/some/where").unwrap(), table("path = \"/some/where\""));
        assert!(parse_set("novalue").is_err() && parse_set("a..b=1").is_err());
    }
}
