//! HTML pages that need nothing else: templates (minijinja), in which every value is escaped.

use minijinja::{AutoEscape, Environment, Value};

use crate::error::{Error, Result};

/// The style of all pages of runs, for a screen, light or dark, and paper.
pub(crate) const STYLE: &str = include_str!("page.css");

/// The page that `template` makes of the values in `context`. It fills the block `body` of
/// `page.html`, which asks for `title`, `style`, `wgrad`, `command` and perhaps `date`.
///
/// # Errors
/// [`Error::Argument`] for a template that asks for what is not there.
pub(crate) fn page(template: &str, context: Value) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::SemiStrict);
    let made = environment.add_template("page.html", include_str!("page.html")).and_then(|()| environment.render_str(template, context));
    made.map_err(|error| Error::argument("page", error.to_string()))
}

/// Text that is HTML already: a picture, a style sheet.
pub(crate) fn safe(html: impl Into<String>) -> Value {
    Value::from_safe_string(html.into())
}
