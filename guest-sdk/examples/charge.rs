//! Charges for orders, by a service for payments.

use exosphere_sdk::prelude::*;

#[derive(Deserialize, JsonSchema)]
struct Order {
    id: u32,
    cents: u32,
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Receipt {
    number: String,
}

fn charge(order: Order) -> Result<Receipt> {
    let receipt = http::post("https://pay.example.com/v1/charges")
        .query("order", order.id)
        .json(&json!({"cents": order.cents}))
        .idempotent()
        .timeout(Duration::from_secs(5))
        .send()?
        .json()?;
    Ok(receipt)
}

export!(charge);

#[cfg(test)]
mod tests {
    use super::*;
    use exosphere_sdk::testing::{Answer, Host};

    #[test]
    fn a_busy_service_gets_the_same_key() {
        let charges = "POST https://pay.example.com/v1/charges";
        let mut host = Host::new()
            .run_id("run")
            .answer(charges, Answer::status(503))
            .answer(charges, Answer::json(json!({"number": "R-1"})));
        let order = json!({"id": 7, "cents": 250});
        assert!(host.run(&PLUGIN, "charge", &order).failure().retryable);
        assert_eq!(host.run(&PLUGIN, "charge", &order).output(), json!({"number": "R-1"}));
        let request = &host.requests()[0];
        assert_eq!(request.url, "https://pay.example.com/v1/charges?order=7");
        assert_eq!(request.header("idempotency-key"), Some("run/1/0/1"));
    }
}
