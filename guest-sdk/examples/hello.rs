//! Greets people.
use exosphere_sdk::prelude::*;

#[derive(Deserialize, JsonSchema)]
struct Person {
    name: String,
}

#[derive(Serialize, JsonSchema)]
struct Greeting {
    text: String,
}

fn hello(person: Person) -> Result<Greeting> {
    Ok(Greeting { text: format!("Hello, {}!", person.name) })
}

export!(hello);
