//! Names of enum values.

/// Gives an enum its names on the wire, in the CLI and in stores.
macro_rules! named {
    ($type:ident { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, with its name on the wire.
            pub const ALL: &'static [($type, &'static str)] = &[$(($type::$variant, $name)),+];

            /// The name on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $($type::$variant => $name),+ }
            }

            /// The value of that name.
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some($type::$variant),)+ _ => None }
            }
        }
    };
}
